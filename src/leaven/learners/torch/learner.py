"""How is a neural network fitted with PyTorch, and trained on from where it stopped?

An update goes on from all that the next step depends on: parameters, the optimizer's state, the warming up of its
rate, and both sources of chance. So a fit of three epochs, updated by two on the same rows, is a fit of five, to the
bit. PyTorch itself keeps none of these with a model, and a fresh optimizer's first steps are unlike those that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY
from hashlib import sha256
from typing import Any, Literal

import msgspec
import numpy as np

from leaven.events.labels import Task
from leaven.learners.guards import (
    INPUTS_FILE,
    Inputs,
    check_answers,
    check_continues,
    check_rows,
    check_takes,
    inputs_of,
    widened,
)
from leaven.learners.owned_code import code_of, imported
from leaven.learners.torch.growth import grow_categories, grow_classes, grow_features
from leaven.learners.torch.rows import Preparation, preparation_of
from leaven.learners.torch.serving import WHERE, load_model, network_of
from leaven.learners.torch.settings import check_settings
from leaven.learners.torch.state import (
    FORMAT,
    MODEL_FILE,
    SHEET_FILE,
    TRAINING_FILE,
    Sheet,
    State,
    load_network,
    network_bytes,
    sheet_in,
    training_in,
)
from leaven.learners.torch.surgery import Module
from leaven.learners.torch.training import (
    Pace,
    Rows,
    Schedule,
    Ties,
    begin,
    check_outputs,
    learn,
    optimizer_of,
    remember,
    repeatable,
    shrink_and_perturb,
    tensors,
)
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, TrainingSet
from leaven.training.surgery import NewClasses, Proof, change, places, proven
from leaven.values import value

_FRESH = "Fit a version from scratch instead."


@value
class Torch:
    """A neural network: ours for tables, or one of your own.

    Ours: numbers are standardised, gaps stand at the mean and are marked, categories are embedded, and layers of
    `hidden` units follow. Yours: a function, called with a `NetworkInputs`
    (`leaven.learners.torch.network`), that returns a `torch.nn.Module`; it is imported by name and never stored, so
    whoever loads the model must allow the name, in `LEAVEN_TRUSTED_TYPES`. It is trained in single precision and
    answers in double, so that an answer does not depend on which rows were asked beside it.

    Args:
        hidden: Units of each layer between inputs and output; none makes a linear model.
        module: A function of your own that builds the network, as `"module:function"` or itself.
        activation: `"relu"`, `"gelu"`, `"silu"` or `"tanh"`.
        dropout: Share of the units that are left out of a training step, [0, 1).
        embedding: Numbers by which a category is told apart.
        epochs: How often a fit passes over the rows.
        update_epochs: How often an update does.
        batch_size: Rows of a step, at most.
        optimizer: `"adamw"`, or `"sgd"` with a momentum of 0.9.
        learning_rate: The highest rate, (0, 1].
        update_learning_rate: That of updates; None is the same.
        schedule: `"constant"`, or `"cosine"`, which falls to 0 within each fit and each update.
        warmup: Steps in which the rate rises, counted over fits and updates.
        weight_decay: Of the optimizer.
        ewc: Weight of elastic weight consolidation in an update: what past answers depend on is held. As large as the
            number of past rows per new one, it takes the past as seriously as the present. None to do without.
        lwf: Weight and temperature (1 or more) of learning without forgetting: an update also keeps to what the parent
            answers to the new rows. None to do without.
        shrink: Before an update, parameters are multiplied by the first, (0, 1], and get noise of the second, a
            standard deviation; the optimizer begins anew. None to do without.
        threads: Threads used in training; with another number, last digits may differ.

    Raises:
        BadDefinition: a setting is out of its range, or there is no such function.
    """

    hidden: Sequence[int] = (64, 32)
    _: KW_ONLY
    module: str | Callable[..., Any] | None = None
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    dropout: float = 0.0
    embedding: int = 8
    epochs: int = 20
    update_epochs: int = 3
    batch_size: int = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 0.003
    update_learning_rate: float | None = None
    schedule: Schedule = "constant"
    warmup: int = 0
    weight_decay: float = 0.01
    ewc: float | None = None
    lwf: Sequence[float] | None = None
    shrink: Sequence[float] | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("hidden", "lwf", "shrink"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(given) if isinstance(given, Sequence) else given)
        if callable(self.module):
            object.__setattr__(self, "module", f"{self.module.__module__}:{self.module.__qualname__}")
        check_settings(self)
        if self.module is not None:
            imported(WHERE, str(self.module))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    @property
    def new_classes(self) -> NewClasses | None:
        """Where an update gives our network outputs for them; an owner's layers are left alone."""
        return "update" if self.grows else None

    @property
    def soft_labels(self) -> bool:
        """Always: the log loss that is fitted takes a share as it takes 0 and 1."""
        return True

    @property
    def format(self) -> str:
        """Arrays of numbers, as NumPy stores them without pickle."""
        return FORMAT

    @property
    def stateful(self) -> bool:
        """Always: an update trains on."""
        return True

    @property
    def grows(self) -> bool:
        """Whether features can be added: to our network, not to one whose layers only its owner knows."""
        return self.module is None

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return a network trained on `data` alone.

        Raises:
            CannotLearn: the data has no rows or one class only, or the network diverged or cannot answer.
        """
        check_rows("Torch", data)
        preparation = preparation_of(data.encoder, data.matrix, data.label, task=data.schema.task)
        sheet = self._sheet(preparation, outputs=_outputs(data))
        with repeatable(self.threads):
            state = begin(lambda: self._network(sheet), self._optimizer, seed=seed)
            rows = _rows(preparation, data)
            check_outputs(state.network, rows, outputs=sheet.outputs)
            learn(state, rows, self._pace(self.epochs, self.learning_rate), Ties())
            return self._kept(state, sheet, rows, data)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent, trained on `data` from where it stopped; chance too goes on, so `seed` is not used.

        Raises:
            CannotLearn: as `fit`, or the parent takes other inputs, is another network, had another optimizer, or comes
                without the state of its training.
            ModelDamaged: the parent's files are not what was stored.
        """
        check_rows("Torch", data)
        check_continues("Torch", parent, data, made_by=self._made_by())
        with repeatable(self.threads):
            sheet, state = self._restored(parent)
            if self.module is None:  # the tables of others keep their rows: what came later counts as unknown
                preparation = sheet.preparation.with_categories(data.encoder)
                grow_categories(state, sheet.preparation, preparation)
                sheet = msgspec.structs.replace(sheet, preparation=preparation)
            rows = _rows(sheet.preparation, data)
            sheet = self._with_classes(state, sheet, rows, _outputs(data))
            if self.shrink is not None:
                shrink_and_perturb(state, keep=self.shrink[0], noise=self.shrink[1])
            weight, temperature = self.lwf if self.lwf is not None else (0.0, 1.0)
            pace = self._pace(self.update_epochs, self.update_learning_rate or self.learning_rate)
            learn(state, rows, pace, Ties(self.ewc or 0.0, weight, temperature))
            return self._kept(state, sheet, rows, data)

    def grow(
        self, parent: Files, *, old: Encoder, new: Encoder, probe: Matrix, trusted: Collection[str] = ()
    ) -> tuple[Files, Proof]:
        """Return the parent's network with inputs for what is in `new` only, and the proof that it answers as before.

        Raises:
            CannotLearn: the parent does not take `old`, `new` does not hold all of it, or the network is the owner's.
            ModelDamaged: the parent's files are not what was stored.
            NotProven: the grown network answers something else.
        """
        if not self.grows:
            why = f"the layers of {self.module} are its owner's, and cannot be given inputs"
            raise CannotLearn("Torch", why, _FRESH)
        inputs, stands = check_takes("Torch", parent, old), places("Torch", old, new)
        with repeatable(self.threads):
            sheet, state = self._restored(parent)
            preparation = sheet.preparation.with_features(new, probe)
            asked = np.ascontiguousarray(probe[:, list(stands)]), probe
            proof = grow_features(
                state,
                sheet.preparation,
                preparation,
                embedding=sheet.embedding,
                probe=asked,
                operation=change(old, new),
            )
        sheet = msgspec.structs.replace(sheet, preparation=preparation)
        return _files(state, sheet, lambda content: widened(inputs, new, content=content)), proven(proof)

    def _sheet(self, preparation: Preparation, *, outputs: int) -> Sheet:
        module = str(self.module or "")
        code = code_of(module) if module else ""
        hidden = tuple(self.hidden)
        return Sheet(preparation, outputs, hidden, self.activation, self.dropout, self.embedding, module, code)

    def _network(self, sheet: Sheet) -> Module:
        return network_of(sheet, imported(WHERE, sheet.module) if sheet.module else None)

    def _optimizer(self, network: Module) -> Any:
        return optimizer_of(self.optimizer, network, weight_decay=self.weight_decay)

    def _pace(self, epochs: int, rate: float) -> Pace:
        return Pace(epochs, self.batch_size, rate, self.schedule, self.warmup)

    def _restored(self, parent: Files) -> tuple[Sheet, State]:
        sheet = msgspec.structs.replace(sheet_in(parent), dropout=self.dropout)
        state = begin(lambda: self._network(sheet), self._optimizer, seed=0)
        load_network(state.network, parent[MODEL_FILE])
        state.restore(training_in(parent, sheet))
        state.steps, state.rows = sheet.steps, sheet.rows
        return sheet, state

    def _with_classes(self, state: State, sheet: Sheet, rows: Rows, outputs: int) -> Sheet:
        """The sheet of the network with outputs for classes that came, which it gets."""
        if outputs == sheet.outputs:
            return sheet
        if not self.grows:
            why = f"{outputs - sheet.outputs} classes came, and the layers of {self.module} are its owner's"
            raise CannotLearn("Torch", why, _FRESH)
        grow_classes(state, outputs - sheet.outputs, rows)
        return msgspec.structs.replace(sheet, outputs=outputs)

    def _kept(self, state: State, sheet: Sheet, rows: Rows, data: TrainingSet) -> Files:
        """The files of a trained network, once it answers."""
        if self.ewc is not None:
            remember(state, rows)
        state.rows += len(data.label)
        files = _files(state, sheet, lambda content: inputs_of(data, made_by=self._made_by(), content=content))
        check_answers("Torch", load_model(files, trusted=[str(self.module)]), data)
        return files

    def _made_by(self) -> str:
        layers = f"layers of {list(self.hidden)}, {self.activation}, embeddings of {self.embedding}"
        return f"Torch {self.module or layers}, {self.optimizer}"


def _outputs(data: TrainingSet) -> int:
    return len(data.encoder.classes) or 1


def _rows(preparation: Preparation, data: TrainingSet) -> Rows:
    return tensors(data.schema.task, *preparation.inputs(data.matrix), preparation.scaled(data.label))


def _files(state: State, sheet: Sheet, describe: Callable[[bytes], Inputs]) -> Files:
    model, training = network_bytes(state.network), state.training_bytes()
    sheet = msgspec.structs.replace(sheet, steps=state.steps, rows=state.rows, training=sha256(training).hexdigest())
    return {
        MODEL_FILE: model,
        TRAINING_FILE: training,
        SHEET_FILE: msgspec.json.encode(sheet, order="deterministic"),
        INPUTS_FILE: describe(model).to_bytes(),
    }
