"""The running system proves challengers while visitors never stop: what harms is rolled back, the better promoted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from leaven.controller.people import prove, request_refresh
from leaven.controller.verify import judged_again
from leaven.controller.words import abort
from leaven.duration import micros
from leaven.registry import routing
from tests.acceptance.conftest import Worlds
from tests.acceptance.crashing import TRUSTED
from tests.acceptance.traffic import Traffic, visitors
from tests.acceptance.worlds import World
from tests.controller.pasts import day

FOLLOWS_WITHIN = 1.0  # seconds from a decision to the last answer of the version before
TICK = 0.5

# The n-th model is as the word says that stands in a file beside the loop file when it is trained.
SCRIPTED = """
from dataclasses import dataclass, replace
from pathlib import Path

import skops.io
from sklearn.linear_model import LogisticRegression

from leaven.experiments import Watch
from leaven.learners import ScikitLearn
from tests.acceptance.crashing import DiesOnSomeRows

WORD = Path({word!r})


@dataclass(frozen=True)
class Scripted:
    format = "skops"
    stateful = False

    def fit(self, data, *, seed):
        word = WORD.read_text()
        if word == "reversed":
            data = replace(data, label=1 - data.label)
        files = dict(ScikitLearn(LogisticRegression()).fit(data, seed=seed))
        model = skops.io.loads(files["model.skops"])
        if word == "weak":
            model.coef_ *= 0.02
        if word == "dies on some rows":
            model = DiesOnSomeRows()
            model.fitted = True
        files["model.skops"] = skops.io.dumps(model)
        return files
"""
ROLLOUT = (
    '[Shadow("6h", margin=0.25, min_units=20), Canary(0.5, each="6h", margin=0.25, min_units=20), '
    'Watch("6h", holdback={holdback}, min_units=20)]'
)


@dataclass
class Routes:
    """Every routing table, and when it was first seen (`time.monotonic`)."""

    seen: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def look(self, shop: World) -> None:
        """Look again and again until stopped."""
        known: dict[str, int] = {}
        while not self.stopped.is_set():
            for table in routing.newer_tables(shop.app.database, known):
                known["shop"] = table.revision
                self.seen.append((time.monotonic(), frozenset(arm.version for arm in table.arms)))
            time.sleep(0.02)

    def strangers(self, traffic: Traffic) -> list[tuple[float, str]]:
        """Answers of versions that no table in force then named; the one before is so for a second more."""
        spans = [
            (since, until, versions)
            for (since, versions), (until, _) in zip(
                self.seen, [*self.seen[1:], (float("inf"), frozenset())], strict=True
            )
        ]
        return [
            (answer.asked, answer.version)
            for answer in traffic.answers
            if not any(
                answer.version in versions
                for since, until, versions in spans
                # The table can be seen a few milliseconds before this process saw it.
                if answer.received >= since - 0.1 and answer.asked <= until + FOLLOWS_WITHIN
            )
        ]


@contextmanager
def observed(shop: World) -> Iterator[Routes]:
    routes = Routes()
    thread = threading.Thread(target=routes.look, args=(shop,))
    thread.start()
    try:
        yield routes
    finally:
        routes.stopped.set()
        thread.join()


@dataclass
class Days:
    """The shop's days, which pass when the test says so, once enough visitors have come by in each."""

    shop: World
    traffic: Traffic
    word: Path
    least: int  # answers in a tick
    now: float = 6.0

    def train(self, word: str) -> int:
        """Have a version made as `word` says, and return its number; its trial is open then."""
        self.word.write_text(word)
        request_refresh(self.shop.app.database, "shop", by="test", now=self.shop.clock.now())
        self.shop.wait(lambda: not self.shop.in_steps(), f"a version that is {word}")
        return max(self.shop.version_numbers())

    def tick(self) -> None:
        """Let enough visitors come by under the present table, then let the next tick come and see it in force."""
        self.shop.wait(self.shop.in_force, "the gateways to take the routes")
        before = len(self.traffic.answers)
        self.shop.wait(lambda: len(self.traffic.answers) >= before + self.least, "enough visitors")
        self.now += TICK
        # A second beyond the tick: of what is asked while the clock stands, some is always on its way to the lake.
        self.shop.clock.set(day(self.now) + timedelta(seconds=1))
        self.shop.wait(lambda: self.shop.looked() >= micros(day(self.now)), "the controller to look")
        self.shop.wait(self.shop.in_force, "the gateways to take the routes")

    def until_decided(self, outcome: str, version: int, *, ticks: int = 6) -> None:
        """Let ticks come until the trial of `version` is decided so."""
        for _ in range(ticks):
            told = [(one.outcome, one.version) for one in self.shop.decisions("trial")]
            if (outcome, version) in told:
                return
            self.tick()
        raise AssertionError(f"{outcome} of version {version} was not decided: {self.shop.decisions('trial')[-1]}")

    def serve_from(self, stage: str, version: int) -> None:
        """Skip the stages before `stage`: as `leaven trial abort` and `leaven trial start --from` do."""
        now = self.shop.clock.now()
        abort(self.shop.app.database, "shop", by="test", why="", now=now)
        prove(self.shop.app.parts(), self.shop.loop, version, start_with=stage, by="test", now=now)


@contextmanager
def a_shop(world: Worlds, folder: Path, *, on: str, least: int, holdback: float, users: int) -> Iterator[Days]:
    """The whole system with a weak first version, and visitors who tell the truth."""
    word = folder / "word"
    word.write_text("weak")
    shop = world(
        on=on, given={"LEAVEN_TRUSTED_TYPES": TRUSTED}, extra=SCRIPTED.format(word=str(word)), learner="Scripted()",
        triggers="[]", gates="[]", rollout=ROLLOUT.format(holdback=holdback),
    )  # fmt: skip
    # The log is read every half a second rather than at once: fewer files of it, of which each look reads all.
    shop.__dict__["settings"] = replace(shop.settings, seal_seconds=0.5)
    shop.start_up(workers=1)
    request_refresh(shop.app.database, "shop", by="test", now=shop.clock.now())
    shop.wait(lambda: shop.alias() == 1, "the first champion")
    shop.wait(shop.in_force, "the gateways to take the routes")
    with observed(shop) as routes:
        with visitors(shop.gateway_port, users=users, rest=0.05, truthful=True) as traffic:
            yield Days(shop, traffic, word, least)
        assert traffic.refused == []
        assert {answer.status for answer in traffic.answers} == {200}
        assert routes.strangers(traffic) == []
    judged = [(one, judged_again(one)) for one in shop.decisions("trial")]
    assert not [one.id for one, again in judged if again not in (None, (one.outcome, one.why))]


CRASH, REGRESSION = ("dies on some rows", "met a failure"), ("reversed", "worse than the margin")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("on", "harms"),
    [
        ("sqlite", [REGRESSION]),
        pytest.param("sqlite", [CRASH, REGRESSION], marks=pytest.mark.slow),
        pytest.param("postgres", [CRASH, REGRESSION], marks=pytest.mark.slow),
    ],
    ids=["wrong answers", "crashes and wrong answers", "on PostgreSQL"],
)
def test_what_harms_is_rolled_back_and_what_is_better_is_promoted_while_nobody_notices(
    world: Worlds, tmp_path: Path, on: str, harms: list[tuple[str, str]]
) -> None:
    with a_shop(world, tmp_path, on=on, least=120, holdback=0.2, users=50) as days:
        shop = days.shop
        for word, found in harms:
            bad = days.train(word)
            days.serve_from("canary", bad)
            days.until_decided("roll_back", bad)
            assert found in shop.decisions("trial")[-1].why
            assert [(arm.arm, arm.version) for arm in shop.table().arms] == [("champion", "1")]
            assert shop.alias() == 1
        # All served, but that one which dies may be down whenever it is asked: the champion then stands in for it.
        dying = {str(number) for number, harm in enumerate(harms, start=2) if harm == CRASH}
        served = {answer.version for answer in days.traffic.answers}
        assert served | dying == {str(number) for number in range(1, bad + 1)}

        good = days.train("good")
        days.until_decided("promote", good)
        assert {arm.arm: arm.version for arm in shop.table().arms} == {"champion": str(good), "holdback": "1"}
        days.until_decided("keep", good)
        assert [(arm.arm, arm.version) for arm in shop.table().arms] == [("champion", str(good))]
        of_good = [one.outcome for one in shop.decisions("trial") if one.version == good]
        assert of_good == ["begin", "advance", "promote", "keep"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_champion_that_harms_after_its_promotion_gives_everybody_back(world: Worlds, tmp_path: Path) -> None:
    with a_shop(world, tmp_path, on="sqlite", least=1_500, holdback=0.4, users=300) as days:
        shop = days.shop
        bad = days.train("reversed")
        days.serve_from("watch", bad)
        days.until_decided("promote", bad)
        assert shop.alias() == bad
        days.until_decided("roll_back", bad)
        assert "worse than the margin" in shop.decisions("trial")[-1].why
        assert (shop.alias(), shop.alias("previous")) == (1, None)
        assert [(arm.arm, arm.version) for arm in shop.table().arms] == [("champion", "1")]
