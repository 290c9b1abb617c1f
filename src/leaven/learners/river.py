"""How does a model of River learn, one example at a time?

Source: J. Montiel and others, "River: machine learning for streaming data in Python" (JMLR 22, 2021). Each row is shown
to the model once, in the order of the snapshot: fitting on two stretches of time one after the other is fitting on
both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY
from math import isnan
from threading import Lock
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.events.labels import Task
from leaven.learners.bounds import check_choice
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import INPUTS_FILE, check_continues, check_rows, inputs_in, inputs_of
from leaven.learners.river_storage import PICKLE, SAFE, restored, stored
from leaven.stats.answers import none
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, Model, TrainingSet
from leaven.training.surgery import NewClasses
from leaven.values import value

_ROWS_FILE = "rows.json"
_PROBE_ROWS = 256

Categories = Literal["text", "one-hot"]


@value
class River:
    """Any classifier or regressor of River, or a pipeline that ends in one.

    A row reaches it as a dictionary by feature name, in which a missing value is left out. Linear models and pipelines
    of them are stored safely. Trees, forests and ensembles are stored by pickle, which has to be allowed by name: here,
    and in `LEAVEN_TRUSTED_TYPES` where the model serves.

    Args:
        model: The model, which has learnt nothing yet; it is copied, its empty seeds are set from the loop's seed.
        categories: `"text"` gives `{"colour": "red"}`, which trees take as it is; `"one-hot"` gives
            `{"colour=red": 1.0}`, which linear models need.
        trusted: `"river-pickle"`, and full names of types of your own that the model contains.

    Raises:
        BadDefinition: the model is none of River's, or a setting is none of those there are.
    """

    model: Any
    _: KW_ONLY
    categories: Categories = "text"
    trusted: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "trusted", tuple(self.trusted))
        if isinstance(self.model, type) or not hasattr(self.model, "learn_one"):
            what = f"{self.model!r} is no model of River"
            raise BadDefinition("River(model)", what, "Give one, such as linear_model.LogisticRegression().")
        check_choice("River(categories=…)", self.categories, ("text", "one-hot"))

    def __repr__(self) -> str:
        shown = [_written(self.model)]
        if self.categories != "text":
            shown.append(f'categories="{self.categories}"')
        if self.trusted:
            shown.append(f"trusted={list(self.trusted)}")
        return f"River({', '.join(shown)})"

    # Models compare by identity; two that are written alike are one definition.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, River) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def new_classes(self) -> NewClasses:
        """A model of several classes meets a new one as it meets any row."""
        return "update"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    @property
    def format(self) -> str:
        """A skops archive, or a pickle where the owner allows it by name."""
        return PICKLE if PICKLE in self.trusted else SAFE

    @property
    def stateful(self) -> bool:
        """Always: it learns one example at a time."""
        return True

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return a model that has seen the rows of `data` once, in their order.

        Raises:
            CannotLearn: the data has no rows or one class only, the model refuses them, is of another task, diverged,
                or is of a kind that can only be pickled while nobody allowed that.
        """
        check_rows("River", data)
        return self._taught(_unlearnt(self.model, seed), data)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent after the rows of `data` too; nothing is drawn but what the parent's own state draws.

        Raises:
            CannotLearn: as `fit`, or the parent takes other inputs or is another model.
        """
        check_rows("River", data)
        check_continues("River", parent, data, made_by=self._made_by())
        return self._taught(restored(parent, format=self.format, trusted=self.trusted), data)

    def _taught(self, model: Any, data: TrainingSet) -> Files:
        _check_task(model, data.schema.task)
        rows = _Rows(data.encoder, self.categories)
        outcome = {"binary": bool, "multiclass": int}.get(data.schema.task, float)
        try:
            for row, label in zip(rows.of(data.matrix), data.label.tolist(), strict=True):
                model.learn_one(row, outcome(label))
            made = RiverModel(model, rows, data.schema.task, len(data.encoder.classes))
            answers = made.predict(data.matrix[-_PROBE_ROWS:])
        except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
            why = f"{type(model).__name__} stumbles over a row ({type(error).__name__}: {error})".rstrip(".")
            mend = 'Handle scales and gaps in a pipeline; linear models need categories="one-hot".'
            raise CannotLearn("River", why, mend) from error
        if not np.isfinite(answers).all():
            mend = "Scale the features (StandardScaler() | …), or lower the learning rate."
            raise CannotLearn("River", "the model diverged: it answers what is no number", mend)
        files = stored(model, format=self.format, trusted=self.trusted)
        inputs = inputs_of(data, made_by=self._made_by())
        return files | {INPUTS_FILE: inputs.to_bytes(), _ROWS_FILE: rows.to_bytes()}

    def _made_by(self) -> str:
        return f"{_written(self.model)}, {self.categories}"


class RiverModel:
    """A loaded model. Some of River's remember what they were asked, so threads ask it one after the other."""

    def __init__(self, model: Any, rows: _Rows, task: str, classes: int = 0) -> None:
        self._model, self._rows, self._lock, self._classes = model, rows, Lock(), classes
        self._ask = {"binary": self._probability, "multiclass": self._probabilities}.get(task, model.predict_one)

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes)."""
        if not len(matrix):
            return none(0, self._classes)
        with self._lock:
            return np.array([self._ask(row) for row in self._rows.of(matrix)], dtype=np.float64)

    def _probability(self, row: dict[str, Any]) -> float:
        shares = self._model.predict_proba_one(row)
        return float(shares.get(True, 0.0)) if shares else 0.5  # a tree that knows nothing says nothing

    def _probabilities(self, row: dict[str, Any]) -> list[float]:
        shares = self._model.predict_proba_one(row)
        if not shares:
            return [1 / self._classes] * self._classes
        return [float(shares.get(place, 0.0)) for place in range(self._classes)]


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the model in `files`, which says of itself whether it is an archive or a pickle.

    Raises:
        UntrustedModel: it is a pickle that nobody allowed, or made of what is not in `trusted`; nothing of it was made.
        ModelDamaged: the files are incomplete or unreadable.
    """
    format = PICKLE if "model.pickle" in files else SAFE
    model = restored(files, format=format, trusted=trusted)
    inputs = inputs_in(files, format)
    return RiverModel(model, _Rows.from_files(files, format), inputs.task, len(inputs.classes))


class _Rows:
    """How a row of a matrix becomes the dictionary that River takes."""

    def __init__(self, encoder: Encoder, categories: Categories) -> None:
        self._encoder, self._categories = encoder, categories
        self._names = [
            (name, encoder.categories.get(name, ()) if kind == "category" else None)
            for name, kind, _ in encoder.features
        ]

    def of(self, matrix: Matrix) -> Iterator[dict[str, Any]]:
        """Give the dictionaries of the rows, in their order."""
        one_hot = self._categories == "one-hot"
        for values in matrix.tolist():
            row: dict[str, Any] = {}
            for (name, known), given in zip(self._names, values, strict=True):
                if isnan(given) or (known is not None and given >= len(known)):  # a category that came later
                    continue
                if known is None:
                    row[name] = given
                elif one_hot:
                    row[f"{name}={known[int(given)]}"] = 1.0
                else:
                    row[name] = known[int(given)]
            yield row

    def to_bytes(self) -> bytes:
        """Return what `from_files` reads."""
        return msgspec.json.encode((self._encoder, self._categories), order="deterministic")

    @classmethod
    def from_files(cls, files: Files, format: str) -> _Rows:
        try:
            return cls(*msgspec.json.decode(files[_ROWS_FILE], type=tuple[Encoder, Categories]))
        except (KeyError, msgspec.DecodeError) as error:
            raise ModelDamaged(format, f"{_ROWS_FILE}: {error}") from error


def _check_task(model: Any, task: str) -> None:
    from river import base

    kind = base.Regressor if task == "regression" else base.Classifier
    last = _last_step(model)
    if not isinstance(last, kind):
        why = f"{type(last).__name__} is no {kind.__name__.lower()}, which a {task} label needs"
        raise CannotLearn("River", why, "Use a model that answers such a label.")


def _last_step(model: Any) -> Any:
    from river.compose import Pipeline

    while isinstance(model, Pipeline):
        model = list(model.steps.values())[-1]
    return model


def _unlearnt(model: Any, seed: int) -> Any:
    """A copy that has seen nothing, with the loop's seed wherever it has none."""
    parts = _parts(model)
    if parts is not None:
        return type(model)(*((name, _unlearnt(part, seed)) for name, part in parts))
    if not hasattr(model, "_get_params"):
        return deepcopy(model)
    given = model._get_params()
    positional = given.pop("_POSITIONAL_ARGS", ())
    settings = {name: _unlearnt(getattr(model, name, item), seed) for name, item in given.items()}
    if "seed" in settings and settings["seed"] is None:
        settings["seed"] = seed
    return type(model)(*positional, **settings)


def _written(given: Any) -> str:
    """The expression that makes `given`: a model with all that is not at its default, whole and on one line."""
    if isinstance(given, list | tuple):
        inner = ", ".join(map(_written, given))
        return f"[{inner}]" if isinstance(given, list) else f"({inner}{',' * (len(given) == 1)})"
    parts = _parts(given)
    if parts is not None:
        named = [
            _written(part) if name == type(part).__name__ else f"({name!r}, {_written(part)})" for name, part in parts
        ]
        return f"{type(given).__name__}({', '.join(named)})"
    if isinstance(given, type) or not hasattr(given, "_get_params"):
        return str(getattr(given, "__qualname__", None) or repr(given))
    settings = given._get_params()
    shown = sorted(map(_written, settings.pop("_POSITIONAL_ARGS", ())))
    usual = _usual(type(given))
    for name in settings:
        written = _written(getattr(given, name))
        if written != usual.get(name):
            shown.append(f"{name}={written}")
    return f"{type(given).__name__}({', '.join(shown)})"


def _usual(kind: type) -> dict[str, str]:
    """Its settings as written when none is given; none for a kind that cannot be made without."""
    try:
        plain: Any = kind()
    except TypeError:
        return {}
    return {name: _written(getattr(plain, name)) for name in plain._get_params() if name != "_POSITIONAL_ARGS"}


def _parts(model: Any) -> list[tuple[str, Any]] | None:
    """Names and models of a pipeline or of a union; None for anything else."""
    from river.compose import Pipeline, TransformerUnion

    if isinstance(model, Pipeline):
        return list(model.steps.items())
    return list(model.transformers.items()) if isinstance(model, TransformerUnion) else None
