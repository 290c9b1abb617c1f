"""A PyTorch network: does it go on to the bit, keep what it is told to keep, and grow; and is every trap refused?

Skipped, loudly, where torch is not installed: pip install "leaven[torch]". What holds for every learner is in
`test_laws.py`, which takes this one in where torch is there.
"""

from __future__ import annotations

import io
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec

import msgspec
import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip(
        'TORCH IS NOT INSTALLED: leaven.learners.Torch is not tested here. To test it: pip install "leaven[torch]"',
        allow_module_level=True,
    )

import torch

from leaven.errors import BadDefinition
from leaven.learners import Torch, load
from leaven.learners.fitting import fit_or_update
from leaven.learners.formats import ModelDamaged
from leaven.learners.growing import grown_parent, proof_in
from leaven.learners.owned_code import UntrustedCode
from leaven.learners.torch.rows import FARTHEST, Preparation, preparation_of
from leaven.learners.torch.state import Sheet, read_arrays
from leaven.loop import Schema
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn, TrainingSet
from tests.learners.builders import a_training_set, some_columns
from tests.learners.test_growing import ORDERS, later, without

NET = Torch([16], epochs=3, update_epochs=2, batch_size=64, dropout=0.2, warmup=1000, learning_rate=0.01)
COLOURS = "amber red green violet"


def arrays_of(files, name="training.npz"):
    return dict(read_arrays(files[name], name))


def sealed(files, training):
    """The files with another state of training, as if it had been stored so."""
    kept = io.BytesIO()
    np.savez(kept, **training)
    sheet = msgspec.json.decode(files["network.json"], type=Sheet)
    sheet = msgspec.structs.replace(sheet, training=sha256(kept.getvalue()).hexdigest())
    return {**files, "training.npz": kept.getvalue(), "network.json": msgspec.json.encode(sheet)}


def answers(files, data, **trusted):
    return load("torch-npz", files, **trusted).predict(data.matrix)


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_fit_that_is_updated_on_the_same_rows_is_one_longer_fit_to_the_bit(optimizer, task):
    data, net = a_training_set(300, task=task), replace(NET, optimizer=optimizer)
    in_turn = net.update(net.fit(data, seed=1), data, seed=77)
    at_once = replace(net, epochs=5).fit(data, seed=1)
    assert in_turn["model.npz"] == at_once["model.npz"]
    assert in_turn["training.npz"] == at_once["training.npz"]
    assert in_turn["model.npz"] != net.fit(data, seed=1)["model.npz"]


@pytest.mark.parametrize("left_out", ["momentum", "second moment", "count of steps", "dropout", "sampler", "schedule"])
def test_without_any_part_of_the_state_it_would_be_another_model(left_out):
    """What PyTorch forgets when only the parameters are kept; each part alone changes what training goes on to."""
    data = a_training_set(300)
    files = NET.fit(data, seed=1)
    state = arrays_of(files)
    if left_out == "schedule":
        sheet = msgspec.json.decode(files["network.json"], type=Sheet)
        assert sheet.steps == 15
        poorer = {**files, "network.json": msgspec.json.encode(msgspec.structs.replace(sheet, steps=0))}
    else:
        ending = {"momentum": "exp_avg", "second moment": "exp_avg_sq", "count of steps": "step"}.get(left_out)
        if ending:
            state = {name: held * 0 if name.endswith(f"/{ending}") else held for name, held in state.items()}
        else:
            other = torch.Generator().manual_seed(5).get_state().numpy()
            state["chance" if left_out == "dropout" else "sampler"] = other
        poorer = sealed(files, state)
    assert sealed(files, arrays_of(files))["training.npz"] == files["training.npz"]
    assert NET.update(poorer, data, seed=1)["model.npz"] != NET.update(files, data, seed=1)["model.npz"]


def test_a_parent_whose_state_of_training_is_missing_or_damaged_is_refused():
    data = a_training_set(300)
    files = NET.fit(data, seed=1)
    bare = {name: held for name, held in files.items() if name != "training.npz"}
    assert np.isfinite(answers(bare, data)).all()  # it can answer
    with pytest.raises(CannotLearn, match=r"optimizer state is missing: there is no training\.npz.*from scratch"):
        NET.update(bare, data, seed=1)
    flipped = bytearray(files["training.npz"])
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(ModelDamaged, match=r"training\.npz is not what it was"):
        NET.update({**files, "training.npz": bytes(flipped)}, data, seed=1)
    state = arrays_of(files)
    for gone, told in (("optimizer/", "optimizer state is missing"), ("sampler", "random state is missing")):
        with pytest.raises(CannotLearn, match=told):
            NET.update(sealed(files, {n: held for n, held in state.items() if not n.startswith(gone)}), data, seed=1)
    state["optimizer/layers.0.weight/exp_avg"] = state["optimizer/layers.0.weight/exp_avg"][:, :-1]
    with pytest.raises(CannotLearn, match=r"optimizer state of layers\.0\.weight is of another shape"):
        NET.update(sealed(files, state), data, seed=1)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(NET, hidden=[16, 8]), r"layers of \[16\].*this is Torch layers of \[16, 8\]"),
        (replace(NET, activation="gelu"), "relu.*gelu"),
        (replace(NET, embedding=4), "embeddings of 8.*embeddings of 4"),
        (replace(NET, optimizer="sgd"), "adamw.*sgd"),
    ],
)
def test_a_parent_of_another_architecture_or_optimizer_is_refused(other, told):
    with pytest.raises(CannotLearn, match=told):
        other.update(NET.fit(a_training_set(300), seed=1), a_training_set(300), seed=1)


def test_rates_and_ties_may_change_from_update_to_update():
    data = a_training_set(300)
    files = NET.fit(data, seed=1)
    for settings in ({"update_learning_rate": 0.1, "dropout": 0.0}, {"lwf": [1, 2]}, {"shrink": [0.9, 0]}):
        changed = replace(NET, **settings)
        assert changed.update(files, data, seed=1)["model.npz"] != NET.update(files, data, seed=1)["model.npz"]


def test_the_process_keeps_its_own_chance_threads_and_modes():
    data = a_training_set(200)
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_deterministic_debug_mode()
    files = NET.update(NET.fit(data, seed=1), data, seed=1)
    answers(files, data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before[1:]
    torch.manual_seed(4)  # and what it is does not matter
    assert NET.fit(data, seed=1) == NET.fit(data, seed=1) != NET.fit(data, seed=2)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e300])
def test_a_strange_number_does_no_harm(strange):
    """PyTorch makes every parameter NaN of a single one, without a word."""
    data = a_training_set(300)
    data.matrix[::7, 1] = strange
    files = NET.fit(data, seed=1)
    told = answers(NET.update(files, data, seed=1), data)
    assert np.isfinite(told).all()
    assert np.isfinite(answers(files, data)).all()


def test_a_network_that_diverges_is_refused():
    data = a_training_set(300, task="regression")
    wild = Torch([16], epochs=30, optimizer="sgd", learning_rate=1.0, batch_size=8)
    with pytest.raises(CannotLearn, match=r"diverged.*Lower learning_rate"):
        wild.fit(data, seed=1)


def test_rows_are_prepared_as_is_said():
    matrix = np.array([[1.0, 0, 5], [3.0, 1, 5], [np.nan, np.nan, 5], [np.inf, 7, 5], [2.0, 0, 5]])
    features = (("size", "float", False), ("kind", "category", False), ("same", "int", False))
    ready = preparation_of(Encoder(features, {"kind": ("a", "b")}), matrix, np.arange(5.0), task="regression")
    numbers, codes = ready.inputs(matrix)
    deviation = np.sqrt(2 / 3)
    np.testing.assert_allclose(numbers[:, 0], [-1 / deviation, 1 / deviation, 0, 0, 0])
    np.testing.assert_array_equal(numbers[:, 1], [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(numbers[:, 2:], np.zeros((5, 2)))  # what never varies
    np.testing.assert_array_equal(codes[:, 0], [1, 2, 0, 0, 1])
    assert ready.inputs(np.array([[1e9, 0, 5.0]]))[0][0, 0] == FARTHEST
    np.testing.assert_allclose(ready.answers(ready.scaled(np.arange(5.0))), np.arange(5.0), atol=1e-15)
    assert ready.scaled(np.arange(5.0)).std() == pytest.approx(1)


def test_a_number_to_be_predicted_may_be_of_any_size():
    data = a_training_set(600, task="regression")
    far = replace(data, label=1e6 + 1e4 * data.label)
    net = replace(NET, epochs=10, warmup=0)
    near, told = answers(net.fit(data, seed=1), data), answers(net.fit(far, seed=1), far)
    np.testing.assert_allclose(told, 1e6 + 1e4 * near, rtol=1e-5)


def test_soft_labels_are_learnt():
    data = a_training_set(400)
    soft = replace(data, label=0.25 + 0.5 * data.label, soft=True)
    net = replace(NET, epochs=30, warmup=0, dropout=0.0)
    assert answers(net.fit(soft, seed=1), data).mean() == pytest.approx(soft.label.mean(), abs=0.05)
    assert NET.soft_labels


FEATURES = tuple((name, "float", False) for name in "abcd")


def concept(rows: int, seed: int, *, new: bool) -> TrainingSet:
    """Two numbers whose sum says it all; in the new world one of them counts the other way round, and another moved."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 4))
    matrix[:, 0] += 1.5 if new else -1.5
    signal = 2 * matrix[:, 1] + (-2 if new else 2) * matrix[:, 2]
    label = (signal + rng.logistic(size=rows) * 0.5 > 0).astype(float)
    return TrainingSet(matrix, label, Encoder(FEATURES, {}), Schema(FEATURES, "user", "binary"))


def log_loss(files, data: TrainingSet) -> float:
    told = np.clip(answers(files, data), 1e-12, 1 - 1e-12)
    return float(-(data.label * np.log(told) + (1 - data.label) * np.log(1 - told)).mean())


def both(one: TrainingSet, other: TrainingSet) -> TrainingSet:
    return replace(
        one, matrix=np.concatenate([one.matrix, other.matrix]), label=np.concatenate([one.label, other.label])
    )


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])  # one more draw of all of it
def test_fine_tuning_follows_the_drift_and_each_tie_forgets_less(seed):
    """Log loss on 4,000 rows of each world, of which noise alone makes about 0.2."""
    old, new = concept(3000, 10 * seed, new=False), concept(1000, 10 * seed + 1, new=True)
    tests = concept(4000, 99, new=True), concept(4000, 98, new=False)
    plain = Torch([32, 16], epochs=15, update_epochs=10, learning_rate=0.01)
    ways = {
        "plain": (plain, new),
        "ewc": (replace(plain, ewc=100.0), new),
        "lwf": (replace(plain, lwf=[1.0, 2.0]), new),
        "replay": (plain, both(new, replace(old, matrix=old.matrix[:1000], label=old.label[:1000]))),
    }
    frozen = plain.fit(old, seed=seed)
    on_new, on_old = (log_loss(frozen, test) for test in tests)
    assert on_old < 0.3 < on_new
    found = {
        name: [log_loss(net.update(net.fit(old, seed=seed), rows, seed=1), test) for test in tests]
        for name, (net, rows) in ways.items()
    }
    assert all(losses[0] < on_new - 1 for losses in found.values()), found
    assert found["plain"][1] > on_old + 1, found  # it forgets, or there would be nothing to hold
    assert all(found[name][1] < found["plain"][1] - 0.2 for name in ("ewc", "lwf", "replay")), found


def linear(rows: int, seed: int, *, noise: bool = False) -> TrainingSet:
    rng = np.random.default_rng(seed)
    features = tuple((f"x{index}", "float", False) for index in range(20))
    matrix = rng.normal(size=(rows, 20))
    label = rng.integers(0, 2, rows).astype(float) if noise else (matrix[:, :5].sum(1) > 0).astype(float)
    return TrainingSet(matrix, label, Encoder(features, {}), Schema(features, "user", "binary"))


def test_shrink_and_perturb_closes_most_of_the_gap_of_a_warm_start():
    """A parent that learnt labels of pure noise by heart generalises worse, once set right, than a fresh network."""
    by_heart, right, test = linear(400, 0, noise=True), linear(400, 40), linear(3000, 100)
    net = Torch([32], epochs=80, update_epochs=40, learning_rate=0.01, weight_decay=0.0, batch_size=64)
    parent = net.fit(by_heart, seed=0)
    fresh = log_loss(replace(net, epochs=40).fit(right, seed=50), test)
    warm = log_loss(net.update(parent, right, seed=1), test)
    shrunk = log_loss(replace(net, shrink=[0.2, 0.01]).update(parent, right, seed=1), test)
    assert fresh < shrunk < warm
    assert (warm - shrunk) / (warm - fresh) > 0.5


def test_a_parent_that_was_fitted_without_its_past_noted_cannot_be_consolidated():
    data = a_training_set(300)
    with pytest.raises(CannotLearn, match="fitted without ewc"):
        replace(NET, ewc=1.0).update(NET.fit(data, seed=1), data, seed=1)


def test_what_the_past_depends_on_is_a_mean_over_all_rows_that_were_seen():
    data, more = a_training_set(200), a_training_set(100, seed=8, parent=a_training_set(200).encoder)
    net = replace(NET, ewc=0.0)
    parent = net.fit(data, seed=1)
    child = net.update(parent, more, seed=1)
    old, new = arrays_of(parent), arrays_of(child)
    nothing = {name: held * 0 if name.startswith("fisher/") else held for name, held in old.items()}
    alone = arrays_of(net.update(sealed(parent, nothing), more, seed=1))
    for name in (name for name in old if name.startswith("fisher/")):
        np.testing.assert_allclose(new[name], alone[name] + old[name] * 200 / 300, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_grown_network_answers_as_the_parent_did(task, order):
    parent = NET.fit(a_training_set(600, task=task), seed=1)
    grown, proof = grown_parent(NET, parent, later(order, task=task))
    assert proof.passed
    assert proof.operation.startswith("AddFeatures([")
    assert proof.gradient > 0
    other = later(order, task=task, seed=11)
    np.testing.assert_allclose(answers(grown, other), answers(parent, without(other)), rtol=1e-9, atol=1e-12)
    first, second = (arrays_of(files) for files in (parent, grown))
    moment = "optimizer/layers.0.weight/exp_avg_sq"
    had = first[moment].shape[1]
    np.testing.assert_array_equal(second[moment][:, :had], first[moment])
    np.testing.assert_allclose(second[moment][:, had:], first[moment].mean(), rtol=1e-6)


def test_a_network_grows_again_and_its_features_may_be_put_in_another_order():
    files = NET.fit(a_training_set(600), seed=1)
    for order, operation in (("last", "AddFeatures"), ("first", "ReorderFeatures"), ("between", "ReorderFeatures")):
        files, proof = grown_parent(NET, files, later(order))
        assert proof.operation.startswith(operation)
    other = later("between", seed=11)
    before = answers(NET.fit(a_training_set(600), seed=1), without(other))
    np.testing.assert_allclose(answers(files, other), before, rtol=1e-9, atol=1e-12)


def test_training_goes_on_and_uses_the_new_features():
    net = replace(NET, update_epochs=15, warmup=0, dropout=0.0, ewc=0.0)
    parent = net.fit(a_training_set(600), seed=1)
    richer = fit_or_update(net, later(), mode="update", parent=parent, seed=2)
    poorer = fit_or_update(net, without(later()), mode="update", parent=parent, seed=2)
    fresh = later(seed=21, rows=2000)
    assert log_loss(richer, fresh) < log_loss(poorer, without(fresh)) - 0.1
    assert proof_in(richer).passed


def test_a_new_category_begins_as_the_mean_of_the_others_and_its_optimizer_state_follows():
    data = a_training_set(600)
    net = replace(NET, update_epochs=1, learning_rate=1e-12, weight_decay=0.0, warmup=0, ewc=0.0)
    parent = net.fit(data, seed=1)
    held = arrays_of(parent)
    held = {name: one * 0 if name.endswith("exp_avg") else one for name, one in held.items()}
    new = a_training_set(columns=some_columns(600, seed=7, colours=COLOURS), seed=7, parent=data.encoder)
    child = net.update(sealed(parent, held), new, seed=1)
    table = "embeddings.0.weight"
    old, now = arrays_of(parent, "model.npz")[table], arrays_of(child, "model.npz")[table]
    assert (len(old), len(now)) == (4, 6)
    np.testing.assert_allclose(now[4:], np.broadcast_to(old.mean(axis=0), (2, 8)), atol=1e-6)
    np.testing.assert_allclose(now[:4], old, atol=1e-6)
    np.testing.assert_array_equal(answers(child, data), answers(child, replace(data, encoder=new.encoder)))
    assert arrays_of(child)[f"fisher/{table}"].shape == now.shape


OWNED = """
import torch

class Two(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(rows, 3) for rows in inputs.categories.values())
        self.norm = torch.nn.BatchNorm1d(inputs.width + 3 * len(inputs.categories))
        self.last = torch.nn.Linear(inputs.width + 3 * len(inputs.categories), inputs.outputs)

    def forward(self, numbers, codes):
        told = [numbers, *(table(codes[:, index]) for index, table in enumerate(self.tables))]
        return self.last(self.norm(torch.cat(told, 1)))

def build(inputs): return Two(inputs)
def flat(inputs): return torch.nn.Sequential()
def no_module(inputs): return 3
class Wide(Two):
    def forward(self, numbers, codes): return super().forward(numbers, codes).expand(-1, 2)
class Breaks(Two):
    def forward(self, numbers, codes): return super().forward(numbers[:, 1:], codes)
"""


@pytest.fixture
def owned(tmp_path, monkeypatch):
    (tmp_path / "owned_network.py").write_text(OWNED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "owned_network", raising=False)
    return __import__("owned_network")


def test_a_network_of_the_owners_is_trained_on_to_the_bit_and_served_where_it_is_allowed(owned, caplog, tmp_path):
    data, name = a_training_set(300), "owned_network:build"
    longer = replace(NET, epochs=10, update_epochs=5, warmup=0)
    net = replace(longer, module=owned.build)
    assert net == replace(longer, module=name)
    in_turn = net.update(net.fit(data, seed=1), data, seed=9)
    assert in_turn["model.npz"] == replace(net, epochs=15).fit(data, seed=1)["model.npz"]
    told = answers(in_turn, data, trusted=[name])
    assert np.corrcoef(told, data.label)[0, 1] > 0.15
    with pytest.raises(UntrustedCode, match="LEAVEN_TRUSTED_TYPES=owned_network:build"):
        answers(in_turn, data)
    later_rows = a_training_set(columns=some_columns(300, seed=7, colours=COLOURS), seed=7, parent=data.encoder)
    child = net.update(in_turn, later_rows, seed=1)  # categories that came later count as unknown
    rows = later_rows.matrix[later_rows.matrix[:, 0] >= 3]
    unknown = np.where(np.arange(rows.shape[1]) == 0, np.nan, rows)
    model = load("torch-npz", child, trusted=[name])
    np.testing.assert_array_equal(model.predict(rows), model.predict(unknown))
    with pytest.raises(CannotLearn, match="cannot grow"):
        fit_or_update(net, later(), mode="update", parent=in_turn, seed=1)
    with pytest.raises(CannotLearn, match="are its owner's"):
        net.grow(in_turn, old=data.encoder, new=later().encoder, probe=later().matrix)
    (tmp_path / "owned_network.py").write_text(OWNED + "\n# changed\n")
    answers(in_turn, data, trusted=[name])
    assert "owned_network:build has changed since this version was trained" in caplog.text


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("Wide", CannotLearn, r"gives \(2, 2\) for 2 rows, not 1 each"),
        ("Breaks", CannotLearn, "fails on rows as it is to take them"),
        ("no_module", BadDefinition, "returned int, which is no module"),
        ("flat", BadDefinition, "no parameter to train"),
    ],
)
def test_a_network_of_the_owners_that_is_none_is_refused(name, error, told):
    with pytest.raises(error, match=told):
        replace(NET, module=f"owned_network:{name}").fit(a_training_set(100), seed=1)


def test_tensors_of_another_network_are_refused(owned):
    net = replace(NET, module="owned_network:build")
    files = net.fit(a_training_set(100), seed=1)
    owned.build = owned.Two.__bases__[0]  # no layers at all
    owned.build = lambda inputs: torch.nn.Linear(inputs.width, 1)
    with pytest.raises(ModelDamaged, match="not those of this network"):
        load("torch-npz", files, trusted=["owned_network:build"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"hidden": [0]}, "hidden"),
        ({"hidden": 64}, "no list of layers"),
        ({"activation": "softmax"}, "activation"),
        ({"dropout": 1.0}, "nothing to learn with"),
        ({"optimizer": "adam"}, '"adamw" or "sgd"'),
        ({"schedule": "step"}, "schedule"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"update_learning_rate": 2.0}, "update_learning_rate"),
        ({"epochs": 0}, "epochs"),
        ({"ewc": -1.0}, "ewc"),
        ({"lwf": 1.0}, "a weight and a temperature"),
        ({"lwf": [1.0, 0.5]}, "temperature is 0.5"),
        ({"shrink": [1.5, 0.0]}, "shrink"),
        ({"shrink": [0.5, 0.01], "ewc": 1.0}, "moves the parameters that ewc holds"),
        ({"module": "nowhere_at_all:build"}, "cannot be imported"),
        ({"module": lambda inputs: None}, "no function|has no function"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, told):
    with pytest.raises(BadDefinition, match=told):
        Torch(**settings)


def test_a_stored_preparation_can_be_read_by_people():
    sheet = msgspec.json.decode(NET.fit(a_training_set(100), seed=1)["network.json"])
    assert [part["name"] for part in sheet["preparation"]["parts"]] == ["colour", "size", "count", "new"]
    assert msgspec.convert(sheet["preparation"], Preparation).numbers[0].name == "size"
    assert (sheet["steps"], sheet["rows"]) == (6, 100)
