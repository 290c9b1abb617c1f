"""Does an operated PyTorch model answer as before, does what is new in it learn, and does its optimizer go on?"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from leaven.learners.torch.surgery import Module, Operated, Tensor, torch_library
from leaven.training.surgery import Proof, prove, relative_difference

_FIRST_ORDER = ("exp_avg", "momentum_buffer")
_SECOND_ORDER = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")


def prove_module(
    operation: object,
    *,
    before: Module,
    after: Module,
    operated: Operated,
    probe: Tensor,
    probe_after: Tensor | None = None,
    learns_from: Tensor | None = None,
    way: str = "parameters",
) -> Proof:
    """Return what the answers of a model before and after an operation say about it, in both precisions.

    Answers are compared where the model had some before: new classes come behind the old ones, and must not be chosen.
    In single precision the model's own rounding, four times, is let pass where that is more than a millionth.
    What is new must get a gradient, at once or after a first step.

    Args:
        operation: What was done.
        before: The model as it was; neither model is changed.
        after: The model as it is.
        operated: What the operation returned; its layers are in `after`.
        probe: What the model took, shape (rows, …): numbers, or ids.
        probe_after: What it takes now for the same rows, if that is something else.
        learns_from: Rows in which what is new occurs, if it does not in the probe, such as new ids.
        way: How it was done, in words.
    """
    asked = probe if probe_after is None else probe_after
    torch = torch_library()
    answers: dict[Any, Any] = {}
    for name, kind in (("float32", torch.float32), ("float64", torch.float64)):
        old, new = _answers(before, probe, kind), _answers(after, asked, kind)
        answers[name] = old, _of_old_classes(old, new)
    own = relative_difference(answers["float64"][0], answers["float32"][0])
    arrays = [each.detach().cpu().numpy().reshape(len(each), -1).astype(np.float64) for each in (probe, asked)]
    gradients = _gradients(after, operated, asked if learns_from is None else learns_from)
    return prove(operation, way=way, probe=arrays, answers=answers, gradients=gradients, rounding={"float32": own})


def move_optimizer(optimizer: Any, operated: Operated) -> None:
    """Let an optimizer go on with the parameters of an operated model; what it knew of the old ones follows them.

    New places of an old parameter start with no momentum and with the mean second moment of the old places: with zero,
    the first steps there would be several times too large, as the optimizer believes that it has long started.

    Args:
        optimizer: Of PyTorch's own, on the old parameters; it is changed.
        operated: What the operation returned.
    """
    torch = torch_library()
    moves = {id(move.old): move for move in operated.moves}
    for group in optimizer.param_groups:
        group["params"] = [moves[id(each)].new if id(each) in moves else each for each in group["params"]]
    for move in operated.moves:
        if move.old in optimizer.state:
            kept = optimizer.state.pop(move.old)
            with torch.no_grad():
                optimizer.state[move.new] = {name: _moved(move, name, held) for name, held in kept.items()}
    optimizer.param_groups[0]["params"].extend(operated.fresh)


def _moved(move: Any, name: str, held: Any) -> Any:
    """One entry of the state of a parameter, as the new one needs it."""
    torch = torch_library()
    if not torch.is_tensor(held) or held.shape != move.old.shape or not held.ndim:
        return held  # such as the count of steps
    order = 2 if name in _SECOND_ORDER else 1 if name in _FIRST_ORDER else 0
    laid = move.carry(held, order)
    return torch.where(torch.isnan(laid), held.mean() if order == 2 else torch.zeros_like(laid), laid)


def _answers(model: Module, asked: Tensor, kind: Any) -> Any:
    torch = torch_library()
    copy = deepcopy(model).to(kind).eval()
    with torch.no_grad():
        return copy(asked.to(kind) if asked.is_floating_point() else asked).cpu().numpy()


def _of_old_classes(old: Any, new: Any) -> Any:
    """The answers for what there was before; no number where something new is chosen instead."""
    if old.ndim < 2 or new.shape[-1] <= old.shape[-1]:
        return new
    kept = new[..., : old.shape[-1]].copy()
    kept[new.argmax(axis=-1) >= old.shape[-1]] = np.nan
    return kept


def _gradients(after: Module, operated: Operated, asked: Tensor) -> list[Any] | None:
    """Of each parameter that is new, or new in places, what it gets at the first step or the one after it.

    A correction that begins at zero lets nothing through until its last part has moved, hence two steps.
    """
    torch = torch_library()
    model = deepcopy(after).to(torch.float64).eval()
    copies = dict(model.named_parameters())
    copy_of = {id(each): copies[name] for name, each in after.named_parameters()}
    new = [(move.new, torch.isnan(move.carry(torch.ones_like(move.old), 0))) for move in operated.moves]
    new += [(each, torch.ones_like(each, dtype=torch.bool)) for each in operated.fresh]
    told = [(copy_of[id(each)], places) for each, places in new if bool(places.any())]
    if not told:
        return None
    seen = [np.zeros(1) for _ in told]
    for step in range(2):
        gradients = _one_step(model, asked, seed=step)
        for index, (parameter, places) in enumerate(told):
            if id(parameter) in gradients:
                seen[index] = np.maximum(seen[index], float(gradients[id(parameter)][places].abs().max()))
    return seen


def _one_step(model: Module, asked: Tensor, *, seed: int) -> dict[int, Any]:
    """Take a step towards answers by chance, and return the gradients by the parameters' ids."""
    torch = torch_library()
    trained = [each for each in model.parameters() if each.requires_grad]
    answers = model(asked.to(torch.float64) if asked.is_floating_point() else asked)
    target = torch.randn(answers.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradients = torch.autograd.grad(((answers - target) ** 2).mean(), trained, allow_unused=True)
    found = {id(each): (each, one) for each, one in zip(trained, gradients, strict=True) if one is not None}
    with torch.no_grad():
        for each, one in found.values():
            each.sub_(0.01 * one)
    return {key: one for key, (_, one) in found.items()}
