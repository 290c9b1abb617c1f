"""How does a stored network answer?"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.learners.guards import inputs_in
from leaven.learners.owned_code import allowed
from leaven.learners.torch.network import Layers, built, network_inputs, tabular
from leaven.learners.torch.rows import Preparation
from leaven.learners.torch.state import FORMAT, MODEL_FILE, Sheet, load_network, sheet_in
from leaven.learners.torch.surgery import Module, torch_library
from leaven.training.encoding import Matrix
from leaven.training.learner import Files, Model

WHERE = "Torch(module=…)"


class TorchModel:
    """A network that answers; it is not changed by that, so threads may share it."""

    def __init__(self, network: Module, preparation: Preparation, *, outputs: int) -> None:
        self._network, self._preparation = network.double().eval().requires_grad_(False), preparation
        self._outputs = outputs

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes)."""
        torch = torch_library()
        numbers, codes = self._preparation.inputs(matrix)
        with torch.inference_mode():
            if not len(matrix):
                return self._answers(torch.zeros(0, self._outputs))
            return self._answers(self._network(torch.from_numpy(numbers), torch.from_numpy(codes)))

    def _answers(self, outputs: Any) -> NDArray[np.float64]:
        return self._preparation.answers(outputs[:, 0].numpy())


class TorchClassifier(TorchModel):
    """The same, for a yes-or-no label."""

    def _answers(self, outputs: Any) -> NDArray[np.float64]:
        return np.asarray(outputs[:, 0].sigmoid().numpy(), dtype=np.float64)


class TorchClasses(TorchModel):
    """The same, for a label of several classes: one probability each, shape (rows, classes)."""

    def _answers(self, outputs: Any) -> NDArray[np.float64]:
        return np.asarray(outputs.softmax(dim=1).numpy(), dtype=np.float64)


_SERVES = {"regression": TorchModel, "binary": TorchClassifier, "multiclass": TorchClasses}


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the network in `files`, built by the owner's function where it is not ours, if that is in `trusted`.

    Raises:
        UntrustedCode: nobody allowed that function; nothing was imported.
        ModelDamaged: the files are incomplete or unreadable.
        BadDefinition: torch is not installed, or the function cannot be imported.
    """
    sheet = sheet_in(files)
    build = allowed(WHERE, sheet.module, code=sheet.code, trusted=trusted) if sheet.module else None
    with torch_library().random.fork_rng(devices=[]):  # initial parameters are drawn, and thrown away
        network = network_of(sheet, build)
    load_network(network, files[MODEL_FILE])
    return _SERVES[inputs_in(files, FORMAT).task](network, sheet.preparation, outputs=sheet.outputs)


def network_of(sheet: Sheet, build: Callable[..., Any] | None) -> Module:
    """Return the network that a sheet describes, untrained; `build` makes it where it is the owner's."""
    inputs = network_inputs(sheet.preparation, outputs=sheet.outputs)
    if build is not None:
        return built(build, inputs, where=WHERE)
    return tabular(inputs, Layers(sheet.hidden, sheet.activation, sheet.dropout, sheet.embedding))
