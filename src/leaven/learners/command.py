"""How is a model made by a command of the owner's, in any language, and asked without it?

A command is too slow to be asked per request, so it leaves a model in a format that Leaven reads. It gets a folder:

    train.parquet   the features, in the order of the model's columns, and `label`; oldest row first
    job.json        mode, seed, task, features, categories, and where the model is to be left
    parent/         the model to go on from, if it is to
    model/          where it leaves the new one
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec

from leaven.errors import BadDefinition, LeavenError
from leaven.events.labels import Task
from leaven.learners.bounds import check_choice
from leaven.learners.formats import load
from leaven.learners.guards import INPUTS_FILE, check_answers, check_continues, check_rows, inputs_of
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn, Files, TrainingSet
from leaven.training.plans import Mode
from leaven.values import value, written

_MODEL_FILES = {"xgboost-ubj": "model.ubj", "lightgbm-text": "model.txt", "skops": "model.skops"}
_LABEL = "label"
_LAST_LINES = 20


@value
class Command:
    """A command of your own that trains; it is run with the path of a folder as its last argument.

    In the folder are `train.parquet` and `job.json`; the command leaves the model in `model/`. Features are numbers as
    the model will be asked for them: a category is its code (its place in the `categories` of `job.json`, which only
    ever grow), a missing value is null. The columns of the model must be the features in that order.

    Args:
        arguments: Program and arguments; `"python"` is the Python that runs Leaven. Paths are relative to the folder
            that Leaven was started in.
        format: What the command leaves: `"xgboost-ubj"` as `model/model.ubj`, `"lightgbm-text"` as `model/model.txt`,
            or `"skops"` as `model/model.skops`.
        stateful: Whether the command goes on from the model in `parent/`.
        trusted: With `"skops"`, full names of types of your own that the model contains.

    Raises:
        BadDefinition: there is no command, or a setting is none of those there are.
    """

    arguments: Sequence[str]
    _: KW_ONLY
    format: Literal["xgboost-ubj", "lightgbm-text", "skops"]
    stateful: bool = False
    trusted: Sequence[str] = ()

    def __post_init__(self) -> None:
        given: Any = self.arguments
        if isinstance(given, str) or not given or not all(isinstance(word, str) and word for word in given):
            what, mend = f"{given!r} is no command", 'Write it as a list: ["python", "train.py"].'
            raise BadDefinition("Command(arguments)", what, mend)
        object.__setattr__(self, "arguments", tuple(given))
        object.__setattr__(self, "trusted", tuple(self.trusted))
        check_choice("Command(format=…)", self.format, tuple(_MODEL_FILES))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return what the command makes of `data` alone.

        Raises:
            CannotLearn: the data has no rows or one class only, the command fails, or what it leaves cannot answer.
        """
        check_rows("Command", data)
        return self._made(data, None, seed)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return what the command makes of the parent and `data`.

        Raises:
            CannotLearn: the command is not `stateful`, the parent takes other inputs, or as `fit`.
        """
        if not self.stateful:
            why = f"{written(self.arguments)} is not stateful"
            raise CannotLearn("Command", why, "Use plan=Stateless(), or stateful=True.")
        check_rows("Command", data)
        check_continues("Command", parent, data, made_by=self._made_by())
        return self._made(data, parent, seed)

    def _made(self, data: TrainingSet, parent: Files | None, seed: int) -> Files:
        name = _MODEL_FILES[self.format]
        with TemporaryDirectory(prefix="leaven-command-") as folder:
            place = Path(folder)
            _write_job(place, data, seed=seed, mode="fit" if parent is None else "update", model=name)
            if parent is not None:
                (place / "parent").mkdir()
                (place / "parent" / name).write_bytes(parent[name])
            said = _run(self.arguments, place)
            if not (place / "model" / name).is_file():
                why = f"{written(self.arguments)} left no model/{name}{_quoted(said)}"
                raise CannotLearn("Command", why, "Let it write the model there.")
            content = (place / "model" / name).read_bytes()
        digested = content if self.format == "lightgbm-text" else None
        inputs = inputs_of(data, made_by=self._made_by(), content=digested)
        files: Files = {name: content, INPUTS_FILE: inputs.to_bytes()}
        self._check(files, data)
        return files

    def _check(self, files: Files, data: TrainingSet) -> None:
        """What the command left can be read, and takes our columns in our order."""
        try:
            model = load(self.format, files, trusted=self.trusted)
            width, names = _columns_of(self.format, files, self.trusted)
        except LeavenError as error:
            mend = f"Let the command leave a model of {self.format} there."
            raise CannotLearn("Command", f"what it left is refused: {error}".rstrip("."), mend) from error
        ours = [_plain(name) for name, _, _ in data.encoder.features]
        if width != len(ours):
            why = f"the model takes {width} columns, while there are {len(ours)} features"
            raise CannotLearn("Command", why, "Train it on the features of train.parquet, without the label.")
        theirs = list(map(_plain, names))
        if theirs != ours and sorted(theirs) == sorted(ours):
            why = f"the model takes its columns in another order: {', '.join(names)}"
            raise CannotLearn("Command", why, "Train it on the columns of train.parquet in their order.")
        check_answers("Command", model, data)

    def _made_by(self) -> str:
        return f"Command {written(self.arguments)}, {self.format}"


def _write_job(place: Path, data: TrainingSet, *, seed: int, mode: Mode, model: str) -> None:
    (place / "model").mkdir()
    _write_rows(place / "train.parquet", data)
    encoder: Encoder = data.encoder
    job = {
        "mode": mode,
        "seed": seed,
        "task": data.schema.task,
        "features": [{"name": name, "type": kind} for name, kind, _ in encoder.features],
        "categories": encoder.categories,
        "classes": encoder.classes,
        "label": _LABEL,
        "rows": "train.parquet",
        "parent": None if mode == "fit" else f"parent/{model}",
        "model": f"model/{model}",
    }
    (place / "job.json").write_bytes(msgspec.json.format(msgspec.json.encode(job), indent=2))


def _write_rows(path: Path, data: TrainingSet) -> None:
    import duckdb

    columns = {name: data.matrix[:, index].copy() for index, (name, _, _) in enumerate(data.encoder.features)}
    if _LABEL in columns:
        raise CannotLearn("Command", f"a feature is called {_LABEL!r}, as the labels are", "Rename the feature.")
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # so that rows stay in their order
        connection.register("rows", columns | {_LABEL: data.label})
        connection.execute("COPY (SELECT * FROM rows) TO $path (FORMAT parquet)", {"path": str(path)})


def _run(arguments: Sequence[str], place: Path) -> str:
    """Run the command and return what it said; it ends with this process, being of the same group."""
    program = sys.executable if arguments[0] == "python" else arguments[0]
    try:
        done = subprocess.run(
            [program, *arguments[1:], str(place)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:
        mend = "Name a program that can be run from the folder that Leaven was started in."
        raise BadDefinition("Command(arguments)", f"{arguments[0]!r} cannot be run ({error.strerror})", mend) from error
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise CannotLearn("Command", f"{written(arguments)} ended with {how}{_quoted(said)}", "Mend the command.")
    return said


def _quoted(said: str) -> str:
    last = "\n".join(said.strip().splitlines()[-_LAST_LINES:])
    return f"; its last words:\n{last}\n" if last else " and said nothing"


def _columns_of(format: str, files: Files, trusted: Sequence[str]) -> tuple[int, list[str]]:
    """How many columns a model takes, and their names as far as it knows them."""
    if format == "xgboost-ubj":
        from leaven.learners.xgboost import booster_in

        booster = booster_in(files)
        return booster.num_features(), booster.feature_names or []
    if format == "lightgbm-text":
        from leaven.learners.lightgbm import booster_in

        booster = booster_in(files)
        return booster.num_feature(), booster.feature_name()
    from leaven.learners.scikit_learn_storage import estimator_in

    estimator = estimator_in(files, trusted)
    return estimator.n_features_in_, list(getattr(estimator, "feature_names_in_", []))


def _plain(name: str) -> str:
    """A name as libraries rewrite it, each in its own way."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
