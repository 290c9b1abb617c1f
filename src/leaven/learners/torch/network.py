"""Which network stands between the inputs and the answer: ours for tables, or one of the owner's?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from leaven.errors import BadDefinition
from leaven.learners.torch.rows import Preparation
from leaven.learners.torch.surgery import Module, Tensor, torch_library

ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "Tanh"}


@dataclass(frozen=True, slots=True)
class NetworkInputs:
    """What a network must take and give: `forward(numbers, codes)` returns a tensor of shape (rows, `outputs`).

    `numbers` is float, shape (rows, `width`): of each numeric feature its standardised value, and 1 where it
    is missing; `codes` is int64, shape (rows, number of categories): 0 where missing or unknown, below
    `categories[name]`.
    """

    numbers: tuple[str, ...]  # numeric features, in order
    categories: dict[str, int]  # rows that a table of each needs
    outputs: int  # 1: the logit of class 1, or the standardised value; otherwise a logit of each class
    order: tuple[str, ...]  # all features, as the network is to take them

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return 2 * len(self.numbers)


def network_inputs(preparation: Preparation, *, outputs: int) -> NetworkInputs:
    """Return what a network gets of a preparation."""
    return NetworkInputs(
        tuple(part.name for part in preparation.numbers),
        {part.name: part.known + 1 for part in preparation.categories},
        outputs,
        tuple(part.name for part in preparation.parts),
    )


@dataclass(frozen=True, slots=True)
class Layers:
    """Settings of the network for tables."""

    hidden: tuple[int, ...]
    activation: str
    dropout: float
    embedding: int


def tabular(inputs: NetworkInputs, layers: Layers) -> Module:
    """Return the network for tables: categories are embedded, then come layers of `hidden` units."""
    return classes()["Tabular"](inputs, layers)


def built(build: Any, inputs: NetworkInputs, *, where: str) -> Module:
    """Return the owner's network, if it is one.

    Raises:
        BadDefinition: it is no module, has nothing to train, or holds what is no tensor.
    """
    torch = torch_library()
    made = build(inputs)
    mend = "Return a torch.nn.Module whose forward(numbers, codes) gives a tensor of shape (rows, inputs.outputs)."
    if not isinstance(made, torch.nn.Module):
        raise BadDefinition(where, f"it returned {type(made).__name__}, which is no module", mend)
    held = made.state_dict()
    strange = [name for name, each in held.items() if not torch.is_tensor(each)]
    if strange:
        raise BadDefinition(where, f"its state {strange[0]!r} is no tensor, and only tensors are kept", mend)
    if not any(each.requires_grad for each in made.parameters()):
        raise BadDefinition(where, "it has no parameter to train", mend)
    return made


def joined(network: Module, preparation: Preparation) -> Module:
    """Return the network as it takes numbers and codes side by side in one tensor, which is how surgery is proven."""
    return classes()["Joined"](network, 2 * len(preparation.numbers))


@cache
def classes() -> dict[str, Any]:
    """Return modules of ours; made when torch is first needed."""
    torch = torch_library()
    nn = torch.nn
    module: Any = nn.Module

    class Tabular(module):  # type: ignore[misc]
        def __init__(self, inputs: NetworkInputs, layers: Layers) -> None:
            super().__init__()
            self.order = ["number" if name in inputs.numbers else "category" for name in inputs.order]
            self.embeddings = nn.ModuleList(nn.Embedding(rows, layers.embedding) for rows in inputs.categories.values())
            for table in self.embeddings:
                nn.init.normal_(table.weight, std=0.1)
                nn.init.zeros_(table.weight[0])  # what is unknown says nothing until it was seen
            wide = [inputs.width + layers.embedding * len(self.embeddings), *layers.hidden]
            made = []
            for width, units in pairwise(wide):
                made += [nn.Linear(width, units), getattr(nn, ACTIVATIONS[layers.activation])()]
                made += [nn.Dropout(layers.dropout)]  # always: layers are known by their place
            self.layers = nn.Sequential(*made, nn.Linear(wide[-1], inputs.outputs))

        def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
            return self.layers(self.told(numbers, codes))

        def below_head(self, numbers: Tensor, codes: Tensor) -> Tensor:
            return self.layers[:-1](self.told(numbers, codes))

        def told(self, numbers: Tensor, codes: Tensor) -> Tensor:
            told, at, table = [], 0, 0
            for kind in self.order:
                if kind == "number":
                    told.append(numbers[:, at : at + 2])
                    at += 2
                else:
                    told.append(self.embeddings[table](codes[:, table]))
                    table += 1
            return torch.cat(told, dim=1)

    class Joined(module):  # type: ignore[misc]
        def __init__(self, network: Module, width: int) -> None:
            super().__init__()
            self.network, self.width = network, width

        def forward(self, rows: Tensor) -> Tensor:
            answers = self.network(rows[:, : self.width], rows[:, self.width :].long())
            return answers[:, 0] if answers.shape[1] == 1 else answers

    return {"Tabular": Tabular, "Joined": Joined}
