"""Each operation on a PyTorch model: are the answers the same, does what is new learn, does the optimizer go on?

Skipped, loudly, where torch is not installed: pip install "leaven[torch]".
"""

from __future__ import annotations

from copy import deepcopy
from importlib.util import find_spec

import pytest

if find_spec("torch") is None:
    pytest.skip(
        "TORCH IS NOT INSTALLED: no operation of leaven.learners.torch.surgery is tested here. "
        'To test them: pip install "leaven[torch]"',
        allow_module_level=True,
    )

import torch
from torch import nn

from leaven.learners.torch import surgery as cut
from leaven.learners.torch.proof import move_optimizer, prove_module
from leaven.training.learner import CannotLearn
from leaven.training.surgery import (
    AddAdapter,
    AddClasses,
    AddFeatures,
    AddIds,
    DropFeature,
    InsertLayer,
    InsertNorm,
    RefitScaler,
    Widen,
    WidenRecurrent,
)

ROWS = 64


@pytest.fixture(autouse=True)
def _same_chance():
    torch.manual_seed(0)


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_rows(width: int = 5, seed: int = 2) -> torch.Tensor:
    return torch.randn(ROWS, width, generator=chance(seed))


def a_network(*, activation: type = nn.ReLU, out: int = 3) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, out))
    for layer in model[::2]:
        nn.init.kaiming_normal_(layer.weight)  # answers of the size of the inputs, as those of a trained model
    return model


def replaced(model: nn.Sequential, **layers: nn.Module) -> nn.Sequential:
    """A copy of the sequence with other layers in some places; what is not replaced is shared."""
    return nn.Sequential(*(layers.get(f"at{index}", layer) for index, layer in enumerate(model)))


def inserted(model: nn.Sequential, at: int, *layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*list(model)[:at], *layers, *list(model)[at:])


class Reads(nn.Module):
    """An LSTM of which the last output is read."""

    def __init__(self, lstm: nn.Module, reader: nn.Module) -> None:
        super().__init__()
        self.lstm, self.reader = lstm, reader

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.reader(self.lstm(rows)[0][:, -1])


def _add_inputs(old):
    more = some_rows(7)
    done = cut.add_inputs(old[0], 2)
    new = replaced(old, at0=done.modules[0])
    return AddFeatures(["w", "v"]), new, done, {"probe": more[:, :5], "probe_after": more}


def _add_channels(old):
    more = torch.randn(ROWS, 4, 4, 4, generator=chance())
    done = cut.add_inputs(old[0], 1)
    return AddFeatures(["depth"]), replaced(old, at0=done.modules[0]), done, {
        "probe": more[:, :3], "probe_after": more,
    }  # fmt: skip


def _drop_input(old):
    rows = some_rows()
    rows[:, 2] = 0.7
    done = cut.drop_input(old[0], 2, constant=0.7)
    return DropFeature(2, 0.7), replaced(old, at0=done.modules[0]), done, {
        "probe": rows, "probe_after": rows[:, [0, 1, 3, 4]],
    }  # fmt: skip


def _refit_scaler(old, mean: float = 0.4):
    raw = some_rows().double() * 3 + 1
    then, now = (torch.ones(5), torch.full((5,), 3.0)), (torch.ones(5) + mean, torch.rand(5, generator=chance()) + 2)
    done = cut.refit_scaler(old[0], old=then, new=now)
    return RefitScaler(), replaced(old, at0=done.modules[0]), done, {
        "probe": (raw - then[0]) / then[1], "probe_after": (raw - now[0]) / now[1],
    }  # fmt: skip


def _identity(old):
    done = cut.identity_layer(6, after=old[3])
    return InsertLayer("identity"), inserted(old, 4, done.modules[0], nn.ReLU()), done, {"probe": some_rows()}


def _residual(old):
    done = cut.residual_block(6, 4, activation=nn.GELU())
    return InsertLayer("residual"), inserted(old, 4, done.modules[0]), done, {"probe": some_rows()}


def _copies(old):
    done = cut.widen_by_copies(old[0], old[2], 13, generator=chance(), between=[old[1]])
    new = replaced(old, at0=done.modules[0], at2=done.modules[1])
    return Widen(13, "copies"), new, done, {"probe": some_rows()}


def _nothing(old):
    done = cut.widen_by_nothing(old[0], old[2], 13, between=[old[1]])
    new = replaced(old, at0=done.modules[0], at2=done.modules[1])
    return Widen(13, "nothing"), new, done, {"probe": some_rows()}


def _classes(old, softmax: bool = True):
    rows = some_rows()
    done = cut.add_classes(old[4], 2, share=0.01, inputs=old[:4](rows) if softmax else None)
    return AddClasses(2, 0.01), replaced(old, at4=done.modules[0]), done, {"probe": rows}


def _ids(old):
    done = cut.add_ids(old[0], 3)
    ids = torch.randint(0, 10, (ROWS, 2), generator=chance())
    new = replaced(old, at0=done.modules[0])
    return AddIds(3), new, done, {"probe": ids, "learns_from": ids + 3}


def _norm(old):
    rows = some_rows()
    done = cut.neutral_norm(old[:1](rows).detach())
    return InsertNorm(), inserted(old, 1, done.modules[0]), done, {"probe": rows}


def _lstm(old):
    done = cut.widen_lstm(old.lstm, old.reader, 9)
    rows = torch.randn(ROWS, 6, 3, generator=chance())
    return WidenRecurrent(9), Reads(*done.modules), done, {"probe": rows}


def _adapter(old):
    done = cut.add_adapter(old[2], 2)
    return AddAdapter(2), replaced(old, at2=done.modules[0]), done, {"probe": some_rows()}


def a_convolution() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2))


def an_embedding() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(10, 4, padding_idx=0), nn.Flatten(), nn.Linear(8, 1))


def a_recurrence() -> nn.Module:
    return Reads(nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2))


def a_smooth_network() -> nn.Sequential:
    return a_network(activation=nn.GELU)


OPERATIONS = {  # name: what it is done to, and what is done
    "inputs": (a_network, _add_inputs),
    "channels": (a_convolution, _add_channels),
    "input dropped": (a_network, _drop_input),
    "scaler": (a_network, _refit_scaler),
    "identity": (a_network, _identity),
    "residual": (a_smooth_network, _residual),
    "copies": (a_smooth_network, _copies),
    "nothing": (a_smooth_network, _nothing),
    "classes": (a_network, _classes),
    "sigmoid classes": (a_network, lambda old: _classes(old, softmax=False)),
    "ids": (an_embedding, _ids),
    "norm": (a_network, _norm),
    "lstm": (a_recurrence, _lstm),
    "adapter": (a_network, _adapter),
}


def operated(name: str):
    """The operation, the model before and after it, what was returned, and the rows to ask."""
    make, operate = OPERATIONS[name]
    old = make()
    operation, new, done, given = operate(old)
    return operation, old, new, done, given


EXACT = ("inputs", "channels", "identity", "residual", "sigmoid classes", "ids", "adapter")
SHRINKS = ("input dropped", "scaler")  # nothing is new in them


def proved(name: str):
    operation, old, new, done, given = operated(name)
    return prove_module(operation, before=old, after=new, operated=done, **given)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_leaves_the_answers_alone_in_both_precisions(name):
    proof = proved(name)
    assert proof.passed, str(proof)
    single, double = proof.differences
    assert (single.precision, double.precision) == ("float32", "float64")
    assert single.relative <= single.tolerance <= 1e-5
    assert double.tolerance == 1e-6
    # Weights are kept in single precision, so what is computed anew is rounded there, whatever the answers are in.
    assert double.relative <= (1e-12 if name in EXACT else 1e-6)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_new_gets_a_gradient(name):
    assert (proved(name).gradient is None) == (name in SHRINKS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_layers_that_were_there_stay_as_they_were(name):
    torch.manual_seed(0)
    _, once, *_ = operated(name)
    torch.manual_seed(0)
    _, old, _new, done, _given = operated(name)
    for mine, theirs in zip(once.parameters(), old.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert theirs.requires_grad
    with torch.no_grad():
        for each in done.modules:
            for parameter in each.parameters():
                parameter.add_(1.0)
    for mine, theirs in zip(once.parameters(), old.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def _loss(model: nn.Module, rows: torch.Tensor, width: int) -> torch.Tensor:
    """Of the outputs that there were before; a model is judged by what it was for."""
    answers = model(rows)[..., :width]
    return ((answers - torch.ones_like(answers)) ** 2).mean()


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "RMSprop"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("scaler", "adapter")])
def test_the_optimizer_knows_of_the_old_places_what_it_would_have_known_of_the_new_model(name, optimizer):
    """Oracle: the state that the new model's own optimizer has after the same step from the same answers."""
    _, old, new, done, given = operated(name)
    _holds_for(old, new, done, given, optimizer)


def test_a_scaler_of_the_same_means_carries_the_optimizer_along():
    old = a_network()
    _, new, done, given = _refit_scaler(old, mean=0.0)
    _holds_for(old, new, done, given, "Adam")


def _holds_for(old, new, done, given, optimizer) -> None:
    settings = {"momentum": 0.9} if optimizer == "SGD" else {}
    made = {"lr": 0.0, **settings}
    old, new = old.double(), new.double()
    rows, after = (each.double() if each.is_floating_point() else each
                   for each in (given["probe"], given.get("probe_after", given["probe"])))  # fmt: skip
    width = old(rows).shape[-1]
    known, oracle = (getattr(torch.optim, optimizer)(model.eval().parameters(), **made) for model in (old, new))
    for model, one, seen in ((old, known, rows), (new, oracle, after)):
        one.zero_grad()
        _loss(model, seen, width).backward()
        one.step()
    move_optimizer(known, done)
    for move in done.moves:
        places = ~torch.isnan(move.carry(torch.ones_like(move.old), 1))
        for entry, theirs in oracle.state[move.new].items():
            ours = known.state[move.new][entry]
            if torch.is_tensor(theirs) and theirs.ndim:
                assert ours.shape == move.new.shape
                torch.testing.assert_close(ours[places], theirs[places], rtol=1e-4, atol=1e-10)
            else:
                assert ours == theirs
    assert {id(each) for group in known.param_groups for each in group["params"]} == {
        id(each) for each in new.parameters()
    }


def test_new_places_start_with_no_momentum_and_the_mean_second_moment():
    _, old, new, done, given = operated("inputs")
    optimizer = torch.optim.Adam(old.parameters(), lr=0.01)
    _loss(old, given["probe"], 3).backward()
    optimizer.step()
    mean = optimizer.state[old[0].weight]["exp_avg_sq"].mean()
    move_optimizer(optimizer, done)
    state = optimizer.state[new[0].weight]
    assert (state["exp_avg"][:, 5:] == 0).all()
    torch.testing.assert_close(state["exp_avg_sq"][:, 5:], mean.expand(8, 2))
    assert old[0].weight not in optimizer.state


@pytest.mark.parametrize("name", OPERATIONS)
def test_training_goes_on_without_a_jump(name):
    """(g) of the checks: the loss falls from where it was, with the optimizer that was there."""
    _, old, new, done, given = operated(name)
    rows, after = (each.float() if each.is_floating_point() else each
                   for each in (given["probe"], given.get("probe_after", given["probe"])))  # fmt: skip
    width = old(rows).shape[-1]
    optimizer = torch.optim.Adam(old.parameters(), lr=0.003)
    for _ in range(20):
        optimizer.zero_grad()
        _loss(old, rows, width).backward()
        optimizer.step()
    stood = float(_loss(old, rows, width).detach())  # before layers that both share are trained
    _, new, done, _ = OPERATIONS[name][1](old)
    move_optimizer(optimizer, done)
    new.eval()
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = _loss(new, after, width)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(stood, rel=1e-5)
    assert losses[1] <= losses[0] * 1.01
    assert losses[-1] < losses[0]


def test_what_was_proven_can_be_saved_without_pickle_and_answers_the_same():
    _, _, new, _done, given = operated("residual")
    kept = {name: each.clone() for name, each in new.state_dict().items()}
    other = inserted(a_network(activation=nn.GELU), 4, cut.residual_block(6, 4, activation=nn.GELU()).modules[0])
    other.load_state_dict(kept)
    assert torch.equal(other(given["probe"]), new(given["probe"]))


def test_the_share_of_new_classes_is_as_asked():
    _, old, new, _, given = operated("classes")
    with torch.no_grad():
        before, after = old(given["probe"]).softmax(-1), new(given["probe"]).softmax(-1)
    odds = (after[:, 3:].sum(-1) / after[:, :3].sum(-1)).log().mean().exp()
    assert float(odds) == pytest.approx(0.01 / 0.99, rel=1e-4)  # of the usual row; some give more and some less
    torch.testing.assert_close(after[:, :3] / after[:, :3].sum(-1, keepdim=True), before)  # proportions are kept


def test_copies_are_not_equal_for_long():
    _, _old, new, done, given = operated("copies")
    wide = done.modules[0]
    assert len(wide.weight.unique(dim=0)) == 8
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    _loss(new, given["probe"], 3).backward()
    optimizer.step()
    assert len(wide.weight.unique(dim=0)) == 13


@pytest.mark.parametrize(
    ("operate", "told"),
    [
        (lambda: cut.identity_layer(4, after=nn.GELU()), "GELU .* insert a residual block"),
        (lambda: cut.widen_by_copies(nn.Linear(3, 4), nn.Linear(4, 2), 6, generator=chance(),
                                     between=[nn.LayerNorm(4)]), "LayerNorm .* mixes units"),
        (lambda: cut.widen_by_nothing(nn.Linear(3, 4), nn.Linear(4, 2), 6, between=[nn.Softmax(-1)]), "Softmax"),
        (lambda: cut.widen_by_nothing(nn.Linear(3, 4), nn.Linear(4, 2), 4), "cannot be widened to 4"),
        (lambda: cut.widen_by_nothing(nn.Conv1d(3, 4, 1), nn.Linear(4, 2), 9), "Conv1d .* only linear"),
        (lambda: cut.widen_lstm(nn.LSTM(3, 4, num_layers=2), nn.Linear(4, 1), 6), "only a plain one"),
        (lambda: cut.add_inputs(nn.Conv1d(4, 4, 1, groups=2), 1), "in groups"),
    ],
)  # fmt: skip
def test_what_would_change_the_answers_is_refused(operate, told):
    with pytest.raises(CannotLearn, match=told):
        operate()


def test_the_proof_finds_out_what_is_refused_for_good_reason():
    """Through a normalisation of the layer, units that nothing listens to are heard all the same."""
    old = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    done = cut.widen_by_nothing(old[0], old[2], 11)
    new = nn.Sequential(done.modules[0], nn.LayerNorm(11), done.modules[1])
    proof = prove_module(Widen(11, "nothing"), before=old, after=new, operated=done, probe=some_rows())
    assert not proof.passed
    assert proof.differences[0].relative > 0.01


def test_the_proof_finds_out_what_cannot_learn():
    """Both ends at zero: the answers are the same, and nothing will ever change."""
    _, old, new, done, given = operated("residual")
    with torch.no_grad():
        for each in done.fresh:
            each.zero_()
    proof = prove_module(InsertLayer("residual"), before=old, after=new, operated=done, **given)
    assert proof.differences[0].relative == 0
    assert not proof.passed


def test_the_proof_finds_out_a_class_that_takes_over():
    old, rows = a_network(), some_rows()
    done = cut.add_classes(old[4], 1, share=0.999, inputs=old[:4](rows))
    new = replaced(old, at4=done.modules[0])
    assert not prove_module(AddClasses(1, 0.999), before=old, after=new, operated=done, probe=rows).passed


def test_models_are_not_changed_by_being_proven():
    operation, old, new, done, given = operated("copies")
    kept = deepcopy(new.state_dict())
    prove_module(operation, before=old, after=new, operated=done, **given)
    assert all(torch.equal(kept[name], each) for name, each in new.state_dict().items())
