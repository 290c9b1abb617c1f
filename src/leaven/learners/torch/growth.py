"""How does a network in training get categories, classes and features that it did not know?

By the operations of `leaven.learners.torch.surgery`; what the optimizer knew, and what elastic weight consolidation
knows of the past, follow the parameters. What is new has no past, so nothing holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np

from leaven.learners.torch.network import joined
from leaven.learners.torch.proof import move_optimizer, prove_module
from leaven.learners.torch.rows import Preparation
from leaven.learners.torch.state import State
from leaven.learners.torch.surgery import Operated, Tensor, add_classes, add_ids, add_inputs, torch_library
from leaven.learners.torch.training import Rows
from leaven.training.encoding import Matrix
from leaven.training.surgery import Proof

FIRST_SHARE = 0.01  # of the probability, for classes that came


def grow_categories(state: State, old: Preparation, new: Preparation) -> None:
    """Give the tables rows for categories that came; each begins as the mean of the rows there were."""
    tables = state.network.embeddings
    for index, (before, after) in enumerate(zip(old.categories, new.categories, strict=True)):
        if after.known > before.known:
            operated = add_ids(tables[index], after.known - before.known)

            def put(index: int = index, operated: Operated = operated) -> None:
                tables[index] = operated.modules[0]

            _follow(state, operated, put)


def grow_classes(state: State, count: int, rows: Rows) -> None:
    """Give the head `count` outputs more, which at first get a hundredth of the probability between them.

    The old classes keep their logits, so their proportions.

    Args:
        state: The network in training; it is changed.
        count: Classes that came.
        rows: Rows by which the size of the first answers is set.
    """
    network = state.network
    with torch_library().no_grad():
        below = network.eval().below_head(rows.numbers, rows.codes)
    operated = add_classes(network.layers[-1], count, share=FIRST_SHARE, inputs=below)

    def put() -> None:
        network.layers[-1] = operated.modules[0]

    _follow(state, operated, put)


def grow_features(
    state: State, old: Preparation, new: Preparation, *, embedding: int, probe: tuple[Matrix, Matrix], operation: object
) -> Proof:
    """Give the network inputs for features that came, which it ignores until it is trained; return what shows that.

    Args:
        state: The network in training; it is changed.
        old: What it takes.
        new: What it is to take: all of `old`, and more behind it.
        embedding: Numbers that stand for a category.
        probe: The same rows as `old` and as `new` take them.
        operation: What is done, for the proof.
    """
    torch = torch_library()
    torch.set_rng_state(state.chance)
    network = state.network
    before = joined(deepcopy(network), old)
    added = new.parts[len(old.parts) :]
    tables = [torch.nn.Embedding(part.known + 1, embedding) for part in added if part.number is None]
    for table in tables:
        torch.nn.init.normal_(table.weight, std=0.1)
    operated = Operated(())
    if added:
        wider = add_inputs(network.layers[0], sum(embedding if part.number is None else 2 for part in added))
        operated = Operated(wider.modules, wider.moves, tuple(table.weight for table in tables))

        def put() -> None:
            network.layers[0] = operated.modules[0]
            network.embeddings.extend(tables)
            network.order += ["category" if part.number is None else "number" for part in added]

        _follow(state, operated, put)
    state.chance = torch.get_rng_state()
    asked = [_side_by_side(prepared, rows) for prepared, rows in zip((old, new), probe, strict=True)]
    return prove_module(
        operation, before=before, after=joined(network, new), operated=operated,
        probe=asked[0], probe_after=asked[1], way="its first layer",
    )  # fmt: skip


def _follow(state: State, operated: Operated, put: Callable[[], None]) -> None:
    """Put the layers in place, and let what is known of the old parameters follow them."""
    torch = torch_library()
    names = {id(each): name for name, each in state.network.named_parameters()}
    put()
    move_optimizer(state.optimizer, operated)
    if state.fisher is None:
        return
    moves = {id(move.new): move for move in operated.moves}
    fisher: dict[str, Tensor] = {}
    for name, each in state.network.named_parameters():
        move = moves.get(id(each))
        if move is not None:
            fisher[name] = torch.nan_to_num(move.carry(state.fisher[names[id(move.old)]], 2), nan=0.0)
        else:
            fisher[name] = state.fisher.get(name, torch.zeros_like(each))
    state.fisher = fisher


def _side_by_side(preparation: Preparation, rows: Matrix) -> Tensor:
    return torch_library().from_numpy(np.column_stack(preparation.inputs(rows)))
