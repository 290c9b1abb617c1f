"""A champion elsewhere is asked by the gates like any model, and is never continued."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from leaven.controller.people import promote_by_hand
from leaven.controller.steps import run_step
from leaven.endpoints.description import Endpoint, encoded
from leaven.endpoints.failures import EndpointFailed
from leaven.endpoints.oip import Matrix, OipMapping
from leaven.learners import ScikitLearn
from leaven.registry import versions
from leaven.registry.decisions import decisions
from leaven.stats.moments import Moments
from leaven.training import Stateful
from tests.controller.test_steps import an_opened_refresh, run_steps
from tests.endpoints.servers import Asked, Reply, Writer, http, outputs, says, serving

ONWARDS = ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01))


async def knows_nothing(asked: Asked, writer: Writer) -> Reply:
    return http(outputs([0.5] * asked.rows))


def let_serve(driver, url: str) -> None:
    """Register a server as version 2 and make it the champion."""
    matrix = Matrix(tuple(feature.name for feature in driver.loop.features))
    files = encoded(Endpoint(url, OipMapping("m", matrix=matrix)))
    with driver.database.write() as connection:
        versions.register(
            connection, "shop", artifact=driver.parts.artifacts.put(files), format="endpoint", mode="fit",
            definition_digest=driver.loop.digest, at=driver.micros,
        )  # fmt: skip
    promote_by_hand(driver.database, "shop", 2, by="ada", why="it was there before", now=driver.now)


def test_the_gates_compare_with_what_the_server_answers_and_the_next_version_is_fitted():
    driver, payload = an_opened_refresh(learner=ONWARDS, plan=Stateful())
    with serving(knows_nothing) as server:
        let_serve(driver, server.url)
        codes, payload = run_steps(driver, payload, names=("snapshot", "train", "register", "gate"))
        assert codes == ["done"] * 4
        assert sum(asked.rows for asked in server.asked) > 100
    assert (payload["mode"], payload["parent"], payload["version"]) == ("fit", 2, 3)
    with driver.database.read() as connection:
        judged = decisions(connection, "shop", kind="gate")[-1]
    compared = judged.evidence["reports"][0]["champion"]
    assert judged.outcome == "pass"
    assert msgspec.convert(compared, Moments).mean == pytest.approx(np.log(2)), "the loss of always saying one half"


def test_a_server_that_is_away_fails_the_gate_with_its_reason_and_may_be_tried_again(monkeypatch):
    monkeypatch.setattr("leaven.endpoints.model._PAUSES", (0.01,))
    driver, payload = an_opened_refresh()
    with serving(says(http('{"error": "asleep"}', "503 No"))) as server:
        let_serve(driver, server.url)
        _, payload = run_steps(driver, payload, names=("snapshot", "train", "register"))
        with pytest.raises(EndpointFailed, match="answered 503: asleep"):
            run_step("gate", driver.parts, payload, now=driver.now)
        server.answer = knows_nothing
        assert run_step("gate", driver.parts, payload, now=driver.now).code == "done"
