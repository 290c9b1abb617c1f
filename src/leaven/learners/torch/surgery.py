"""How does a PyTorch model get more inputs, layers, units, classes or ids without being trained?

Each operation takes layers and returns new ones, which the caller puts in their place; the old ones stay as they were.
It also says where every old parameter stands in the new ones, so that an optimizer's state can follow, and what is new,
so that it can be shown to learn (`leaven.learners.torch.proof`).

Sources: T. Chen, I. Goodfellow, J. Shlens, "Net2Net" (ICLR 2016) for copies of units and layers of identity; C. Berner
and others, "Dota 2 with Large Scale Deep Reinforcement Learning" (2019), appendix B, for recurrent layers, here with
zeros from new units into old ones, which is exact; E. Hu and others, "LoRA" (ICLR 2022) for adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import log
from typing import Any

from leaven.errors import BadDefinition
from leaven.training.learner import CannotLearn

Tensor = Any  # torch is not there where these lines are checked
Module = Any
Carry = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class Move:
    """Where an old parameter stands in a new one.

    `carry(values, order)` lays out values of the old one's shape in the new one's, NaN where that is new; `order` is
    the power of the gradient that the values stand for (1 for a momentum, 2 for a second moment), as a parameter that
    is scaled has gradients that are scaled the other way. With 0, copies of what was there count as new as well.
    """

    old: Tensor
    new: Tensor
    carry: Carry


@dataclass(frozen=True, slots=True)
class Operated:
    """What an operation made: layers to be put in place, parameters that go on, and those that are wholly new."""

    modules: tuple[Module, ...]
    moves: tuple[Move, ...] = ()
    fresh: tuple[Tensor, ...] = ()


def torch_library() -> Any:
    """Return the module `torch`.

    Raises:
        BadDefinition: it is not installed.
    """
    try:
        return import_module("torch")
    except ImportError as error:
        mend = 'Install it: pip install "leaven[torch]".'
        raise BadDefinition("PyTorch", f"torch cannot be imported ({error})", mend) from error


def add_inputs(layer: Module, count: int) -> Operated:
    """Return a linear or convolutional layer that takes `count` inputs (or channels) more, and ignores them.

    The new inputs must be finite numbers: zero times infinity is none.
    """
    torch = torch_library()
    shape = layer.weight.shape
    if getattr(layer, "groups", 1) != 1:
        raise _cannot("a convolution in groups", "its channels do not all meet")
    made = _bare(layer, **{_INPUTS[type(layer).__name__]: shape[1] + count})
    with torch.no_grad():
        made.weight.zero_()
        made.weight[:, : shape[1]] = layer.weight
    return Operated((made,), (Move(layer.weight, made.weight, _padded(1, count)), *_kept_bias(layer, made)))


def drop_input(layer: Module, place: int, *, constant: float) -> Operated:
    """Return a linear layer without the input at `place`, for which it takes `constant` from now on."""
    torch = torch_library()
    kept = [index for index in range(layer.in_features) if index != place]
    made = _bare(layer, in_features=len(kept), bias=True)
    with torch.no_grad():
        made.weight.copy_(layer.weight[:, kept])
    carried = Move(layer.weight, made.weight, lambda values, order: values[:, kept])
    return _shifted(layer, made, carried, layer.weight[:, place].detach().double() * constant)


def refit_scaler(layer: Module, *, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Operated:
    """Return a linear layer that answers inputs scaled by `new` as `layer` answers those scaled by `old`.

    Args:
        layer: The layer behind the scaler.
        old: Mean and scale of each input until now, each of shape (inputs,).
        new: Mean and scale from now on.
    """
    torch = torch_library()
    (mean, scale), (new_mean, new_scale) = old, new
    stretch, weight = new_scale.double() / scale.double(), layer.weight.detach().double()  # rounded once, at the end
    made = _bare(layer, bias=True)
    with torch.no_grad():
        made.weight.copy_(weight * stretch)
    # Exact where only scales changed; a new mean also mixes in gradients of the bias, which are small in comparison.
    carried = Move(layer.weight, made.weight, lambda values, order: values / stretch.to(values) ** order)
    return _shifted(layer, made, carried, weight @ ((new_mean.double() - mean.double()) / scale.double()))


def identity_layer(width: int, *, after: Module) -> Operated:
    """Return a linear layer of `width` that hands on what it gets, to be put, with another `after`, behind that one.

    Raises:
        CannotLearn: the activation `after` would change its own output when applied twice, as all but ReLU do.
    """
    torch = torch_library()
    if type(after).__name__ not in ("ReLU", "Identity"):
        raise _cannot(type(after).__name__, "applied twice, it gives something else; insert a residual block")
    made = torch.nn.Linear(width, width)
    with torch.no_grad():
        made.weight.copy_(torch.eye(width))
        made.bias.zero_()
    return Operated((made,), fresh=tuple(made.parameters()))


def residual_block(width: int, hidden: int, *, activation: Module) -> Operated:
    """Return a block that adds to its input what two layers make of it: at first nothing, as the last one is zero."""
    block = _classes()["Residual"](width, hidden, activation)
    return Operated((block,), fresh=tuple(block.parameters()))


def widen_by_copies(
    first: Module, second: Module, to: int, *, generator: Any, between: Sequence[Module] = ()
) -> Operated:
    """Return both layers with `to` units between them: the old ones, and copies of some, which share their listeners.

    A unit and its copies get unlike shares, so they get unlike gradients and grow apart.

    Args:
        first: The linear layer whose units are copied.
        second: The linear layer that listens to them.
        to: How many units there are to be.
        generator: The chance by which units are chosen and shares are cut, a `torch.Generator`.
        between: What stands between the two.

    Raises:
        CannotLearn: something between the two is not unit by unit, such as a normalisation of the layer.
    """
    torch = torch_library()
    had = _room(first, to, between)
    source = torch.cat([torch.arange(had), torch.randint(had, (to - had,), generator=generator)])
    cut = 0.5 + torch.rand(to, generator=generator, dtype=torch.float64)
    share = (cut / torch.zeros(had, dtype=torch.float64).index_add_(0, source, cut)[source]).to(first.weight)
    wide, reader = _bare(first, out_features=to), _bare(second, in_features=to)
    with torch.no_grad():
        wide.weight.copy_(first.weight[source])
        if first.bias is not None:
            wide.bias.copy_(first.bias[source])
        reader.weight.copy_(second.weight[:, source] * share)
    moves = [
        Move(first.weight, wide.weight, _copied(source, share, had)),
        Move(second.weight, reader.weight, _heard(source, had)),
        *_kept_bias(second, reader),
    ]
    if first.bias is not None:
        moves.append(Move(first.bias, wide.bias, _copied(source, share, had)))
    return Operated((wide, reader), tuple(moves))


def widen_by_nothing(first: Module, second: Module, to: int, *, between: Sequence[Module] = ()) -> Operated:
    """Return both layers with `to` units between them; the new ones see at random, and nothing listens to them.

    What they see at first comes from PyTorch's own chance, as for any new layer.

    Raises:
        CannotLearn: something between the two is not unit by unit, such as a normalisation of the layer.
    """
    torch = torch_library()
    had = _room(first, to, between)
    wide = _bare(first, out_features=to)
    with torch.no_grad():
        wide.weight[:had] = first.weight
        if first.bias is not None:
            wide.bias[:had] = first.bias
    moves = [Move(first.weight, wide.weight, _padded(0, to - had))]
    if first.bias is not None:
        moves.append(Move(first.bias, wide.bias, _padded(0, to - had)))
    heard = add_inputs(second, to - had)
    return Operated((wide, *heard.modules), (*moves, *heard.moves))


def add_classes(head: Module, count: int, *, share: float, inputs: Tensor | None) -> Operated:
    """Return a linear head with `count` classes more, which get about `share` of the probability between them.

    Args:
        head: The last layer, which gives logits.
        count: How many classes come.
        share: What they get of the probability at first, in (0, 1).
        inputs: What the head gets for some rows, shape (rows, inputs), if it ends in a softmax: the old classes keep
            their proportions, and the new ones take the share. None if each class has a sigmoid of its own: then the
            old ones stay exactly as they were.
    """
    torch = torch_library()
    had = head.out_features
    made = _bare(head, out_features=had + count, bias=True)
    with torch.no_grad():
        level = 0.0 if inputs is None else float(head(inputs).logsumexp(dim=-1).mean()) - log(count)
        made.weight.zero_()
        made.weight[:had] = head.weight
        made.bias[:had] = 0 if head.bias is None else head.bias
        made.bias[had:] = level + log(share / (1 - share))
    moves = [Move(head.weight, made.weight, _padded(0, count))]
    if head.bias is None:
        return Operated((made,), tuple(moves), fresh=(made.bias,))
    return Operated((made,), (*moves, Move(head.bias, made.bias, _padded(0, count))))


def add_ids(embedding: Module, count: int) -> Operated:
    """Return an embedding of `count` ids more, each like the mean of the old ones (but for the one that is padding)."""
    torch = torch_library()
    had, padding = embedding.num_embeddings, embedding.padding_idx
    told = [index for index in range(had) if index != padding]
    made = _bare(embedding, num_embeddings=had + count)
    with torch.no_grad():
        made.weight[:had] = embedding.weight
        made.weight[had:] = embedding.weight[told].mean(dim=0)
    return Operated((made,), (Move(embedding.weight, made.weight, _padded(0, count)),))


def neutral_norm(inputs: Tensor) -> Operated:
    """Return a batch normalisation that hands on what it gets, as long as it is not training.

    Args:
        inputs: What it gets for some rows, shape (rows, width): two rows or more.
    """
    torch = torch_library()
    made = torch.nn.BatchNorm1d(inputs.shape[1], dtype=inputs.dtype)
    with torch.no_grad():
        made.running_mean.copy_(inputs.mean(dim=0))
        made.running_var.copy_(inputs.var(dim=0))
        made.weight.copy_((made.running_var + made.eps).sqrt())
        made.bias.copy_(made.running_mean)
    return Operated((made,), fresh=tuple(made.parameters()))


def widen_lstm(lstm: Module, reader: Module, to: int) -> Operated:
    """Return an LSTM of `to` units and the linear layer that reads it; old units and the reader do not hear new ones.

    Raises:
        CannotLearn: it has several layers, two directions or a projection.
    """
    torch = torch_library()
    if lstm.num_layers != 1 or lstm.bidirectional or lstm.proj_size:
        raise _cannot("an LSTM of several layers, two directions or a projection", "only a plain one is widened")
    had = lstm.hidden_size
    made = _bare(lstm, hidden_size=to)
    rows = torch.cat([gate * to + torch.arange(had) for gate in range(4)])  # in, forget, cell, out
    moves = []
    with torch.no_grad():
        for name, old in lstm.named_parameters():
            new = dict(made.named_parameters())[name]
            if name.startswith("weight_hh"):
                new[rows, had:] = 0
                new[rows, :had] = old
                moves.append(Move(old, new, _gates(rows, (4 * to, to), columns=had)))
            else:
                new[rows] = old
                moves.append(Move(old, new, _gates(rows, tuple(new.shape), columns=None)))
    heard = add_inputs(reader, to - had)
    return Operated((made, *heard.modules), (*moves, *heard.moves))


def add_adapter(layer: Module, rank: int) -> Operated:
    """Return the linear layer, as it is and no longer trained, with a correction of `rank` that is zero at first."""
    adapted = _classes()["Adapted"](layer, rank)
    pairs = zip(layer.parameters(), adapted.layer.parameters(), strict=True)
    moves = tuple(Move(old, new, lambda values, order: values) for old, new in pairs)
    return Operated((adapted,), moves, fresh=(adapted.down.weight, adapted.up.weight))


_INPUTS = {"Linear": "in_features", "Conv1d": "in_channels", "Conv2d": "in_channels", "Conv3d": "in_channels"}
_UNIT_BY_UNIT = (
    "Identity", "ReLU", "LeakyReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "ELU", "SELU", "Softplus", "Hardtanh", "ReLU6",
    "Mish", "Dropout",
)  # fmt: skip
_SETTINGS = {
    "Linear": ("in_features", "out_features"),
    "Embedding": ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq",
                  "sparse"),
    "LSTM": ("input_size", "hidden_size", "bias", "batch_first"),
} | dict.fromkeys(
    ("Conv1d", "Conv2d", "Conv3d"),
    ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode"),
)  # fmt: skip


def _bare(layer: Module, **other: Any) -> Module:
    """A new layer of the same kind and settings but for `other`; its parameters are those of any new layer."""
    kind = type(layer).__name__
    if kind not in _SETTINGS:
        raise _cannot(kind, f"known are {', '.join(_SETTINGS)}")
    given = {name: getattr(layer, name) for name in _SETTINGS[kind]}
    if kind not in ("Embedding", "LSTM"):
        given["bias"] = layer.bias is not None
    parameter = next(layer.parameters())
    made = type(layer)(**{**given, **other}, dtype=parameter.dtype, device=parameter.device)
    made.train(layer.training)
    return made


def _kept_bias(layer: Module, made: Module) -> tuple[Move, ...]:
    """Copy the bias of a layer whose outputs stay, and say so; nothing where there is none."""
    if layer.bias is None:
        return ()
    with torch_library().no_grad():
        made.bias.copy_(layer.bias)
    return (Move(layer.bias, made.bias, lambda values, order: values),)


def _shifted(layer: Module, made: Module, carried: Move, shift: Tensor) -> Operated:
    """The operation by which a layer's outputs are shifted, in a bias that it may not have had."""
    moves = _kept_bias(layer, made)
    with torch_library().no_grad():
        made.bias.copy_(shift if layer.bias is None else layer.bias + shift)
    return Operated((made,), (carried, *moves), fresh=() if moves else (made.bias,))


def _padded(axis: int, count: int) -> Carry:
    """Old values, and `count` places behind them along the axis."""

    def carry(values: Tensor, order: int) -> Tensor:
        shape = list(values.shape)
        shape[axis] = count
        return torch_library().cat([values, values.new_full(shape, float("nan"))], dim=axis)

    return carry


def _copied(source: Tensor, share: Tensor, had: int) -> Carry:
    """Values of units and of their copies, whose gradients are as much smaller as each is listened to less."""

    def carry(values: Tensor, order: int) -> Tensor:
        laid = values[source] * (share**order).reshape(-1, *[1] * (values.ndim - 1))
        if order == 0:
            laid[had:] = float("nan")
        return laid

    return carry


def _heard(source: Tensor, had: int) -> Carry:
    """What a layer made of units, for these and their copies: gradients there are as they were."""
    carry = _copied(source, torch_library().ones(len(source)), had)
    return lambda values, order: carry(values.mT, order).mT


def _gates(rows: Tensor, shape: tuple[int, ...], *, columns: int | None) -> Carry:
    def carry(values: Tensor, order: int) -> Tensor:
        laid = values.new_full(shape, float("nan"))
        if columns is None:
            laid[rows] = values
        else:
            laid[rows, :columns] = values
        return laid

    return carry


def _room(first: Module, to: int, between: Sequence[Module]) -> int:
    strange = [type(each).__name__ for each in between if type(each).__name__ not in _UNIT_BY_UNIT]
    if strange:
        raise _cannot(strange[0], "it mixes units, so more of them change what the old ones give")
    if type(first).__name__ != "Linear":
        raise _cannot(type(first).__name__, "only linear layers are widened")
    had = int(first.out_features)
    if to <= had:
        raise _cannot(f"a layer of {had} units", f"it cannot be widened to {to}")
    return had


def _cannot(what: str, why: str) -> CannotLearn:
    return CannotLearn("PyTorch", f"{what} cannot be operated on: {why}", "Choose another operation, or train anew.")


@cache
def _classes() -> dict[str, Any]:
    """Modules of ours; made when torch is first needed."""
    torch = torch_library()
    nn = torch.nn
    module: Any = nn.Module

    class Residual(module):  # type: ignore[misc]
        def __init__(self, width: int, hidden: int, activation: Module) -> None:
            super().__init__()
            self.inner, self.activation, self.outer = (
                nn.Linear(width, hidden),
                deepcopy(activation),
                nn.Linear(hidden, width),
            )
            nn.init.zeros_(self.outer.weight)  # only the last: with both at zero neither would get a gradient
            nn.init.zeros_(self.outer.bias)

        def forward(self, given: Tensor) -> Tensor:
            return given + self.outer(self.activation(self.inner(given)))

    class Adapted(module):  # type: ignore[misc]
        def __init__(self, layer: Module, rank: int) -> None:
            super().__init__()
            self.layer = deepcopy(layer).requires_grad_(False)
            kind = {"dtype": layer.weight.dtype, "device": layer.weight.device, "bias": False}
            self.down, self.up = nn.Linear(layer.in_features, rank, **kind), nn.Linear(rank, layer.out_features, **kind)
            nn.init.zeros_(self.up.weight)

        def forward(self, given: Tensor) -> Tensor:
            return self.layer(given) + self.up(self.down(given))

    return {"Residual": Residual, "Adapted": Adapted}
