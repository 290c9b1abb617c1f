"""The same life on PostgreSQL and an object store: the same decisions, and of two controllers one acts."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import msgspec
import pytest

from leaven.controller.service import LEASE_SECONDS
from tests.acceptance.conftest import Worlds
from tests.acceptance.stories import LAST, TICK, Story
from tests.acceptance.worlds import SERVED_FROM, World, differences


@pytest.mark.parametrize("until", [10.0, pytest.param(LAST, marks=pytest.mark.slow)])
@pytest.mark.timeout(400)
def test_on_postgresql_with_tables_and_models_in_a_bucket_the_loop_lives_the_same_life(
    world: Worlds, story: Story, bucket: str, until: float
) -> None:
    """Trained and promoted, then trained anew, shadowed, ramped up: bit for bit what a file and folders came to."""
    shop = world(at=SERVED_FROM, on="postgres",
                 given={"LEAVEN_LAKE": f"{bucket}/lake", "LEAVEN_ARTIFACTS": f"{bucket}/models"})  # fmt: skip
    shop.start("controller")
    shop.start_gateway()
    shop.settle(SERVED_FROM)
    assert not differences(shop.everything(), story.state(SERVED_FROM))
    assert [one.outcome for one in shop.decisions("promote")] == ["promote"]
    shop.remember(9.5)
    shop.pass_to(9.5)
    shop.begin_sending()
    now = 9.5
    while now < until:
        now += TICK
        shop.pass_to(now)
    assert not differences(shop.everything(), story.state(until))
    assert shop.app.lake.loops() == ["shop"]
    assert not (shop.home / "lake").exists()
    assert not (shop.home / "artifacts").exists()
    assert not list(shop.home.glob("*.db"))
    told = shop.run("status", "--json")
    assert told.returncode == 0, told.stderr


@pytest.mark.slow
def test_of_two_controllers_on_one_postgresql_one_acts_and_both_gateways_follow(world: Worlds, story: Story) -> None:
    shop = world(at="refresh due", on="postgres")
    shop.start_gateway()
    first = shop.gateway_port
    second = shop.start_another_gateway()
    leader = shop.start("controller", key="leader")
    shop.wait(lambda: shop.lease()[0].endswith(f"-{leader.pid}"), "the first to lead")
    other = shop.start("controller", key="other")
    log = shop.home / "logs" / "other.log"
    shop.wait(lambda: "waiting to take over" in log.read_text(), "the second to wait")
    _, token = shop.lease()
    shop.send_until(10.0)
    shop.wait(lambda: (active := shop.refresh()) is not None and active.step == "train", "the training")
    leader.kill()
    killed = time.monotonic()
    shop.wait(lambda: shop.lease()[1] > token, "the other to lead", seconds=LEASE_SECONDS + 60)
    assert time.monotonic() - killed < LEASE_SECONDS + 30
    assert shop.lease()[0].endswith(f"-{other.pid}")
    assert shop.lease()[1] == token + 1
    shop.settle(10.0)  # waits for both gateways to take the routes
    assert not differences(shop.everything(), story.state(10.0))
    assert {_answered(port) for port in (first, second)} == {"1"}
    assert _reported(shop) == {shop.newest_revision()}


def _answered(port: int) -> str:
    """The version that answers one request at a gateway."""
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]} for name in ("x", "z")]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v2/models/shop/infer", msgspec.json.encode({"inputs": inputs}),
                       {"Content-Type": "application/json"})  # fmt: skip
    said = msgspec.json.decode(connection.getresponse().read())
    connection.close()
    return str(said["parameters"]["version"])


def _reported(shop: World) -> set[int]:
    """Revisions of the routes that the living gateways say they serve by."""
    from leaven.registry import routing

    with shop.app.database.read() as connection:
        living = [one for one in routing.gateways(connection) if Path(f"/proc/{one.pid}").exists()]
    assert len(living) == 2
    return {one.revisions["shop"] for one in living}
