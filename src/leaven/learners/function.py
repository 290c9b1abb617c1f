"""How is a model made, and asked, by Python functions of the owner's?

The functions are imported by name and never stored: a version holds the files that `function` returned and the name of
the function that loads them. Whoever loads the version must have allowed that name, and must be able to import it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.events.labels import Task
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import INPUTS_FILE, check_answers, check_continues, check_rows, inputs_of
from leaven.learners.naming import named_columns
from leaven.learners.owned_code import allowed, code_of, imported
from leaven.stats.answers import none
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, Model, TrainingSet
from leaven.values import value, written

FORMAT = "python"
_SHEET_FILE = "function.json"


class _Sheet(msgspec.Struct, frozen=True):
    load: str
    code: str  # digest of the module that `load` came from
    encoder: Encoder


@value
class Function:
    """Functions of your own, in a module beside the loop file (or installed).

    `function(columns, label, *, parent, seed)` trains: `columns` are arrays by feature name (categories as text, None
    where missing; numbers with NaN where missing), oldest row first; `label` is the array of labels; `parent` holds the
    files of the version to go on from, or is None. It returns the model's files: bytes by name.

    `load(files)` gives an object whose `predict(columns)` returns one number per row: the probability of class 1 of a
    yes-or-no label, or the value. It must be safe to ask from several threads.

    Where the model serves, allow the code and let it be found: `LEAVEN_TRUSTED_TYPES=late_model:load`, with the module
    installed or its folder on `PYTHONPATH`.

    Args:
        function: What trains, as `"module:function"`.
        load: What loads, as `"module:function"`.
        stateful: Whether `function` goes on from a `parent`.

    Raises:
        BadDefinition: there is no such function.
    """

    function: str
    load: str
    _: KW_ONLY
    stateful: bool = False

    def __post_init__(self) -> None:
        imported("Function(function)", self.function)
        imported("Function(load)", self.load)

    @property
    def reads_text(self) -> bool:
        """Always: the function gets the texts."""
        return True

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    @property
    def format(self) -> str:
        """The owner's own files, and the name of what loads them."""
        return FORMAT

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return what the function makes of `data` alone.

        Raises:
            CannotLearn: the data has no rows or one class only, or the model that was made cannot answer.
        """
        check_rows("Function", data)
        return self._made(data, None, seed)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return what the function makes of the parent and `data`.

        Raises:
            CannotLearn: the function is not `stateful`, the parent takes other inputs, or as `fit`.
        """
        if not self.stateful:
            raise CannotLearn("Function", f"{self.function} is not stateful", "Use plan=Stateless(), or stateful=True.")
        check_rows("Function", data)
        check_continues("Function", parent, data, made_by=self._made_by())
        return self._made(data, _own(parent), seed)

    def _made(self, data: TrainingSet, parent: Mapping[str, bytes] | None, seed: int) -> Files:
        train = imported("Function(function)", self.function)
        columns = named_columns(data.matrix, data.encoder, data.texts)
        files = _checked(self.function, train(columns, data.label.copy(), parent=parent, seed=seed))
        sheet = _Sheet(self.load, code_of(self.load), data.encoder)
        ours = {
            _SHEET_FILE: msgspec.json.encode(sheet, order="deterministic"),
            INPUTS_FILE: inputs_of(data, made_by=self._made_by()).to_bytes(),
        }
        check_answers("Function", load_model(files | ours, trusted=[self.load]), data)
        return files | ours

    def _made_by(self) -> str:
        return f"Function {written(self.function)}"


class FunctionModel:
    """What the owner's function loaded; as safe to share between threads as that is."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self._model, self._encoder = model, encoder

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes)."""
        return self.read(matrix, {})

    def read(self, matrix: Matrix, texts: Mapping[str, NDArray[np.object_]]) -> NDArray[np.float64]:
        """Return one answer per row, as `predict` does, of rows with texts."""
        if not len(matrix):
            return none(0, len(self._encoder.classes))
        return np.asarray(self._model.predict(named_columns(matrix, self._encoder, texts)), dtype=np.float64)


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the model in `files`, loaded by the owner's function if that is in `trusted`.

    Raises:
        UntrustedCode: nobody allowed that function; nothing was imported.
        ModelDamaged: the files are incomplete.
        BadDefinition: the function cannot be imported here.
    """
    try:
        sheet = msgspec.json.decode(files[_SHEET_FILE], type=_Sheet)
    except (KeyError, msgspec.DecodeError) as error:
        raise ModelDamaged(FORMAT, f"{_SHEET_FILE}: {error}") from error
    load = allowed("Function(load)", sheet.load, code=sheet.code, trusted=trusted)
    return FunctionModel(load(_own(files)), sheet.encoder)


def _checked(function: str, files: Any) -> dict[str, bytes]:
    """The files as the function returned them, if they can be kept."""
    mend = 'Return the model\'s files: {"model.bin": …}.'
    if not isinstance(files, Mapping) or not files:
        raise CannotLearn("Function", f"{function} returned {type(files).__name__} instead of files", mend)
    for name, content in files.items():
        plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
        if not plain or name in (_SHEET_FILE, INPUTS_FILE):
            raise CannotLearn("Function", f"{function} returned a file called {name!r}", "Use another, plain name.")
        if not isinstance(content, bytes):
            raise CannotLearn("Function", f"file {name!r} of {function} is {type(content).__name__}, not bytes", mend)
    return dict(files)


def _own(files: Files) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in files.items() if name not in (_SHEET_FILE, INPUTS_FILE)}
