"""A PyTorch network for a label of several classes; skipped, loudly, where torch is not installed."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip(
        'TORCH IS NOT INSTALLED: Torch is not tested on several classes. To test it: pip install "leaven[torch]"',
        allow_module_level=True,
    )

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.errors import BadDefinition
from leaven.learners import Torch, load
from leaven.learners.torch.state import read_arrays
from leaven.loop import Schema
from leaven.training import Stateless
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn, TrainingSet

NET = Torch([16], epochs=15, update_epochs=15, batch_size=64, learning_rate=0.01)
FEATURES = tuple((name, "float", False) for name in "ab")
CORNERS = np.array([[-2.0, -2], [2, -2], [-2, 2], [2, 2]])


def corners(rows: int, classes: tuple[str, ...], *, seed: int = 0, only: tuple[int, ...] | None = None) -> TrainingSet:
    """Rows around the corners of a square, one corner a class."""
    rng = np.random.default_rng(seed)
    label = rng.choice(only or range(len(classes)), rows)
    matrix = CORNERS[label] + rng.normal(size=(rows, 2))
    schema = Schema(FEATURES, "user", "multiclass", classes=classes)
    return TrainingSet(matrix, label.astype(float), Encoder(FEATURES, {}, classes), schema)


def answers(files, data):
    return load("torch-npz", files).predict(data.matrix)


def right(files, data) -> float:
    return float((answers(files, data).argmax(axis=1) == data.label).mean())


def test_each_class_gets_a_probability():
    data = corners(600, ("north", "south", "east"))
    told = answers(NET.fit(data, seed=1), corners(500, ("north", "south", "east"), seed=9))
    assert told.shape == (500, 3)
    np.testing.assert_allclose(told.sum(axis=1), 1)
    assert right(NET.fit(data, seed=1), corners(500, ("north", "south", "east"), seed=9)) > 0.9
    assert answers(NET.fit(data, seed=1), replace(data, matrix=data.matrix[:0])).shape == (0, 3)


def test_going_on_is_one_longer_fit_to_the_bit_for_classes_too():
    data, net = corners(300, ("north", "south", "east")), replace(NET, epochs=3, update_epochs=2, dropout=0.2)
    in_turn = net.update(net.fit(data, seed=1), data, seed=2)
    assert in_turn["model.npz"] == replace(net, epochs=5).fit(data, seed=1)["model.npz"]


def test_a_new_class_takes_a_share_of_the_others_in_proportion_and_is_then_learnt():
    old, classes = corners(600, ("north", "south", "east")), ("north", "south", "east", "west")
    new, test = corners(600, classes, seed=3), corners(1000, classes, seed=9)
    parent = NET.fit(old, seed=1)
    still = replace(NET, update_epochs=1, learning_rate=1e-12, weight_decay=0.0, ewc=None)
    begun = still.update(NET.fit(old, seed=1), new, seed=1)
    before, after = answers(parent, old), answers(begun, old)
    assert after.shape == (600, 4)
    np.testing.assert_allclose(after[:, :3] / (1 - after[:, 3:]), before, atol=1e-5)
    assert 0 < after[:, 3].mean() < 0.1
    child = NET.update(parent, new, seed=1)
    assert right(child, test) > 0.85
    head = [name for name in read_arrays(child["training.npz"], "") if name.endswith("layers.3.weight/exp_avg_sq")]
    assert read_arrays(child["training.npz"], "")[head[0]].shape == (4, 16)


def test_ties_hold_the_old_classes_when_a_new_one_comes():
    """Only rows of the new class: without ties everything is called by its name."""
    old, classes = corners(600, ("north", "south", "east")), ("north", "south", "east", "west")
    new, test = corners(200, classes, seed=3, only=(2, 3)), corners(1000, classes, seed=9, only=(0, 1))
    plain = right(NET.update(NET.fit(old, seed=1), new, seed=1), test)
    found = {}
    for name, ties in {"ewc": {"ewc": 100.0}, "lwf": {"lwf": [3.0, 2.0]}}.items():
        net = replace(NET, **ties)
        child = net.update(net.fit(old, seed=1), new, seed=1)
        found[name] = right(child, test)
    assert all(one > plain for one in found.values()), (plain, found)


def test_a_loop_with_text_is_refused():
    with pytest.raises(BadDefinition, match="Torch reads no text, and feature 'said' is one"):
        Loop(
            "mood", features=[Feature("said", "text")], unit="user", label=Label("y", above=0, within="1d"),
            learner=Torch(), data=AllHistory(), plan=Stateless(),
        )  # fmt: skip


def test_classes_in_another_order_are_refused():
    parent = NET.fit(corners(300, ("north", "south", "east")), seed=1)
    with pytest.raises(CannotLearn, match="classes do not begin with the parent's north, south, east"):
        NET.update(parent, corners(300, ("south", "north", "east")), seed=1)
