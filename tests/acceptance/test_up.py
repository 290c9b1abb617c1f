"""`leaven up`: one command runs everything, keeps it running, and takes it all down again."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request

import pytest

from tests.acceptance.conftest import Worlds
from tests.acceptance.worlds import World, processes_of

PARTS = ("gateway", "flusher", "controller")


def test_up_says_what_runs_where_starts_again_what_dies_and_ends_everything_at_ctrl_c(world: Worlds) -> None:
    shop = world(at="promoted")
    up = shop.start_up(workers=2)
    said = shop.said()
    assert f"gateway     http://127.0.0.1:{shop.gateway_port}  (pid {shop.part('gateway')}, 2 workers)" in said
    assert f"POST http://127.0.0.1:{shop.gateway_port}/v2/models/shop/infer" in said
    for part in PARTS:
        assert f"(pid {shop.part(part)}" in said

    for part in PARTS:
        killed = shop.part(part)
        os.kill(killed, signal.SIGKILL)
        shop.wait(lambda gone=killed, name=part: shop.part(name) not in (0, gone), f"a new {part}")
        assert f"the {part} (pid {killed}) ended with signal SIGKILL; starting it again" in shop.said()
    shop.wait(lambda: _healthy(shop), "the gateway to answer again")

    up.signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    shop.wait(lambda: not processes_of(shop.home), f"the end of {processes_of(shop.home)}", seconds=5)
    assert "stopped; every acknowledged event is kept" in shop.said()
    assert "killed" not in shop.said().partition("Ctrl-C stops")[2].replace("SIGKILL", "")


@pytest.mark.parametrize(
    "busy", [pytest.param(False, id="idle", marks=pytest.mark.slow), pytest.param(True, id="training")]
)
def test_up_that_is_killed_leaves_no_process_behind(world: Worlds, busy: bool) -> None:
    shop = world(at="nothing yet" if busy else "promoted")
    up = shop.start_up(workers=2)
    if busy:
        shop.wait(lambda: (active := shop.refresh()) is not None and active.step == "train", "the training")
    assert len(processes_of(shop.home)) >= 6  # up, three parts, two workers
    up.kill()
    shop.wait(lambda: not processes_of(shop.home), "all parts to end by themselves")


def test_up_on_a_port_that_is_taken_starts_nothing_and_says_so(world: Worlds) -> None:
    shop = world()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = shop.run("up", str(shop.loop_file), "--port", str(port))
    assert refused.returncode == 3
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "--port" in refused.stderr
    assert processes_of(shop.home) == {}


def _healthy(shop: World) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{shop.gateway_port}/v2/health/ready", timeout=10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
