"""Features come, go and change their type while the loop serves: nothing is misread, before or after."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from leaven.curation.snapshot import Snapshot, read_snapshot
from leaven.events.source import Span
from leaven.registry import snapshots
from tests.acceptance.conftest import Worlds
from tests.acceptance.worlds import World

X, Z = 'Feature("x", "float")', 'Feature("z", "float")'


def test_features_change_while_the_loop_serves(world: Worlds) -> None:
    shop = _with_a_file_of_its_own(world(at="promoted"))
    shop.start_gateway()
    shop.start("controller")
    rule, before = shop.loop.label, _snapshots(shop)
    began = shop.clock.now()
    answer, without = _asked(shop, x=1.25, z=0.5, place="hall"), _asked(shop, z=0.5)

    # One goes, one comes: the champion still gets what it was made with, and what is new is logged from now on.
    _edit(shop, f"{X}, {Z}", f'{X}, Feature("place", "category")')
    _next_tick(shop)
    shop.wait(lambda: [f[0] for f in shop.table().schema.features] == ["x", "z", "place"], "the new features' routes")
    shop.wait(shop.in_force, "the gateway to take them")
    assert _asked(shop, x=1.25, z=0.5, place="hall") == answer
    _asked(shop, x=1.25, place="hall")  # without the one that went, as the loop file says now

    # One changes its type: the champion takes what it understands, and answers all the same.
    _edit(shop, X, 'Feature("x", "category")')
    _next_tick(shop)
    shop.wait(lambda: ("x", "category", False) in shop.table().schema.features, "the retyped feature's routes")
    shop.wait(shop.in_force, "the gateway to take them")
    assert _asked(shop, x="1.25", z=0.5) == answer
    assert _asked(shop, x="blue", z=0.5) == without

    shop.clock.set(shop.clock.now() + timedelta(minutes=1))
    shop.wait(lambda: shop.app.watermark() >= shop.clock.now(), "the lake to hold everything")
    read = shop.app.source("shop").examples(Span(began, shop.clock.now()), rule, as_of=shop.clock.now()).predictions
    columns = [[str(each) for each in read.features[name].tolist()] for name in ("x", "z", "place")]
    assert sorted(zip(*columns, strict=True)) == sorted([
        ("1.25", "0.5", "None"), ("None", "0.5", "None"),  # nobody knew of a place yet
        ("1.25", "0.5", "hall"), ("1.25", "nan", "hall"),
        ("1.25", "0.5", "None"), ("blue", "0.5", "None"),
    ])  # fmt: skip
    assert _snapshots(shop) == before


def test_an_edit_that_cannot_be_taken_is_refused_and_what_runs_goes_on(world: Worlds) -> None:
    shop = _with_a_file_of_its_own(world(at="promoted"))
    _edit(shop, 'Label("bought", above=0.5, within="6h")', 'Label("bought", within="6h")')
    _edit(shop, 'NotWorse("log_loss", margin=0.25, min_rows=50)', 'NotWorse("squared_error", margin=0.25)')
    refused = shop.run("events", "export", str(shop.loop_file), str(shop.home / "out.csv"), "--json")
    assert refused.returncode == 2
    assert "regression" in json.loads(refused.stdout)["error"]
    assert "version 2, which serves, gives binary ones" in refused.stderr
    with shop.app.database.read() as connection:
        assert snapshots.snapshots(connection, "shop")
    assert shop.app.loop_names() == ["shop"]


def _with_a_file_of_its_own(shop: World) -> World:
    """The world with a copy of the loop file, which other worlds share, as the one that is registered."""
    shop.loop_file = Path(shutil.copy(shop.loop_file, shop.home / "shop.py"))
    shop.app.enter(shop.loop_file)
    return shop


def _edit(shop: World, before: str, after: str) -> None:
    text = shop.loop_file.read_text()
    assert before in text
    shop.loop_file.write_text(text.replace(before, after))


def _next_tick(shop: World) -> None:
    shop.clock.set(shop.clock.now() + shop.loop.tick_length)


def _asked(shop: World, **features: Any) -> float:
    """The champion's answer to one request."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
        for name, value in features.items()
    ]
    body = json.dumps({"parameters": {"unit": "somebody"}, "inputs": inputs}).encode()
    url = f"http://127.0.0.1:{shop.gateway_port}/v2/models/shop/infer"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as reply:
            return float(json.load(reply)["outputs"][0]["data"][0])
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read()) from error


def _snapshots(shop: World) -> dict[str, list[str]]:
    """The ids of the examples of every snapshot; reading one checks its digest."""
    with shop.app.database.read() as connection:
        kept = snapshots.snapshots(connection, "shop")
    source = shop.app.source("shop")
    found = {}
    for record in kept:
        definition = msgspec.convert(record.definition, Snapshot)
        found[record.id] = read_snapshot(definition, source, shop.loop.label).predictions.id.tolist()
    assert found
    return found
