"""How is a model of boosted trees fitted and continued with LightGBM?

Source: G. Ke and others, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree" (NeurIPS 2017). Continuing
appends trees that are fitted to what the parent leaves unexplained on the new rows. Refitting keeps every split; each
leaf becomes `decay · old + (1 - decay) · new`.

LightGBM checks neither the names nor the order of columns when it continues a model, codes categories anew, takes
another objective, returns the parent unchanged where no leaf can be filled, and ends the process on a damaged file.
Each of these is refused here.

It lets a model start either from trees (`init_model`) or from numbers (`init_score`). A model that corrects a parent of
another kind needs both once it goes on, so there the parent's numbers are part of the objective.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.events.labels import Task
from leaven.learners.bounds import check_choice, check_count, check_share, check_weight, threads_for
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import (
    INPUTS_FILE,
    check_continues,
    check_prefix,
    check_rows,
    check_takes,
    inputs_for,
    inputs_in,
    inputs_of,
    whole_file,
    widened,
)
from leaven.learners.residual import Base, ResidualModel, base_in, from_raw, kept_base
from leaven.learners.surgery_lightgbm import with_columns
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, Model, TrainingSet
from leaven.training.surgery import Proof, change, places, prove, proven
from leaven.values import value

FORMAT = "lightgbm-text"
_MODEL_FILE = "model.txt"
_OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}
_OWN = "custom"  # what a text says of an objective that is a function
_PROBE_ROWS = 256
_FRESH = "Fit a version from scratch instead."


@value
class LightGBM:
    """Gradient-boosted trees that grow leaf by leaf; the objective follows the label (log loss, or squared error).

    Categories are split natively by our codes, which only ever grow; missing values take a learnt side.

    Args:
        rounds: Trees of a model that is fitted from scratch.
        num_leaves: Leaves of a tree, 2 or more.
        learning_rate: How far each tree corrects the ones before it, (0, 1].
        update_rounds: Trees that an update by `"continue"` adds.
        update_by: `"continue"` appends trees; `"refit"` keeps the parent's splits and moves its leaves, so the model
            does not grow.
        decay: Share of the old value that a refitted leaf keeps, [0, 1]: 1 learns nothing, 0 forgets all.
        min_child_samples: Least rows in a leaf.
        subsample: Share of rows that each tree sees, (0, 1].
        colsample_bytree: Share of features that each tree sees, (0, 1].
        reg_lambda: L2 penalty on leaf values.
        max_rounds: An update that would pass this many trees is refused, so that a model cannot grow for ever.
        threads: Threads used in training; 0 is one per two million values, up to one per core.

    Raises:
        BadDefinition: a setting is out of its range.
    """

    rounds: int = 100
    num_leaves: int = 31
    learning_rate: float = 0.1
    _: KW_ONLY
    update_rounds: int = 20
    update_by: Literal["continue", "refit"] = "continue"
    decay: float = 0.9
    min_child_samples: int = 20
    subsample: float = 1.0
    colsample_bytree: float = 1.0
    reg_lambda: float = 0.0
    max_rounds: int = 2000
    threads: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_setting(field.name, getattr(self, field.name))
        if self.rounds > self.max_rounds:
            what = f"rounds={self.rounds} is more than max_rounds={self.max_rounds}"
            raise BadDefinition("LightGBM", what, "Raise max_rounds or lower rounds.")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    @property
    def format(self) -> str:
        """LightGBM's own text, which holds data only."""
        return FORMAT

    @property
    def stateful(self) -> bool:
        """Always: an update appends trees, or moves the leaves."""
        return True

    def import_library(self) -> None:
        """Import what trains, which takes as long as training on a few thousand rows."""
        _library()

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return a model of up to `rounds` trees (fewer, if the rows fill no more leaves) fitted to `data` alone.

        Raises:
            CannotLearn: the data has no rows, or one class only.
        """
        check_rows("LightGBM", data)
        parameters = self._parameters(data, seed)
        return self._files(_library().train(parameters, _rows(data, parameters), self.rounds), data)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent with `update_rounds` more trees, or with leaves moved towards `data`.

        Raises:
            CannotLearn: the data has no rows or one class only, or too few to fill a leaf; the parent takes other
                inputs or has another objective; or the model would pass `max_rounds` trees.
            ModelDamaged: the parent's file is not what was stored.
        """
        check_rows("LightGBM", data)
        check_continues("LightGBM", parent, data, made_by=_made_by(data.schema.task, data.encoder))
        base = base_in(parent, format=FORMAT, trusted=data.trusted)
        old = booster_in(parent) if base is None or _MODEL_FILE in parent else None
        if old is not None:
            _check_own_words(old, data, objective=_OWN if base is not None else _OBJECTIVES[data.schema.task])
        if self.update_by == "continue":
            return {**self._files(self._continued(old, base, data, seed), data), **kept_base(parent)}
        if base is not None:
            why = 'update_by="refit" would leave alone the model that the parent starts from'
            raise CannotLearn("LightGBM", why, f'Use update_by="continue". {_FRESH}')
        return self._files(self._refitted(old, data, seed), data)

    @property
    def corrects(self) -> bool:
        """Where updates append trees: there are none yet whose leaves could be moved."""
        return self.update_by == "continue"

    def start(self, encoder: Encoder, *, task: str) -> Files:
        """Return a model without trees, which takes what `encoder` gives, for `update` to go on from."""
        return {INPUTS_FILE: inputs_for(encoder, task=task, made_by=_made_by(task, encoder)).to_bytes()}

    @property
    def grows(self) -> bool:
        """Where updates append trees: leaves that are moved would never look at a new column."""
        return self.update_by == "continue"

    def grow(
        self, parent: Files, *, old: Encoder, new: Encoder, probe: Matrix, trusted: Collection[str] = ()
    ) -> tuple[Files, Proof]:
        """Return the parent's model with the columns of `new` in its text, and the proof that it answers as before.

        Raises:
            UnknownText: the text is of a version that was not tested.
            CannotLearn: the parent does not take `old`, or `new` does not hold all of it; or updates would never use a
                new column.
            ModelDamaged: the parent's file is not what was stored.
            NotProven: the grown model answers something else.
        """
        if not self.grows:
            why = 'update_by="refit" keeps every split, so a new feature would never be used'
            raise CannotLearn("LightGBM", why, f'Use update_by="continue". {_FRESH}')
        inputs, stands = check_takes("LightGBM", parent, old), places("LightGBM", old, new)
        stored = bytes(whole_file(parent, _MODEL_FILE, FORMAT)).decode()
        text = with_columns(stored, names=_columns(new), places=stands).encode()
        grown = {_MODEL_FILE: text, INPUTS_FILE: widened(inputs, new, content=text).to_bytes(), **kept_base(parent)}
        before = _asked(parent, trusted).predict(np.ascontiguousarray(probe[:, list(stands)]))
        after = _asked(grown, trusted).predict(probe)
        proof = prove(change(old, new), way="its text", probe=[probe], answers={"float64": (before, after)})
        return grown, proven(proof)

    def _continued(self, old: Any | None, base: Base | None, data: TrainingSet, seed: int) -> Any:
        """The parent's trees as they are, and more; those of a model that starts from `base` correct that."""
        had = 0 if old is None else _rounds(old)
        if had + self.update_rounds > self.max_rounds:
            why = f"an update would make {had + self.update_rounds} trees, more than max_rounds={self.max_rounds}"
            raise CannotLearn("LightGBM", why, "Fit a version from scratch, or raise max_rounds.")
        parameters = self._parameters(data, seed)
        rows = _rows(data, parameters)
        if base is not None:
            parameters |= {"objective": _correcting(base.raw(data.matrix), data)}
        booster = _library().train(parameters, rows, self.update_rounds, init_model=old)
        if _rounds(booster) <= had:  # LightGBM only warns, and gives the parent back
            why = f"no split of the {len(data.label)} rows leaves {self.min_child_samples} on both sides and helps"
            raise CannotLearn("LightGBM", why, "Wait for more labels, or lower min_child_samples.")
        if old is not None:
            probe = data.matrix[:_PROBE_ROWS]
            check_prefix("LightGBM", before=_answers(old, probe), after=_answers(booster, probe, trees=had))
        return booster

    def _refitted(self, old: Any, data: TrainingSet, seed: int) -> Any:
        """The parent's splits as they are, with leaves between its own and those of the new rows."""
        parameters = self._parameters(data, seed)
        old.params.update(parameters)  # a refit takes its settings from the model
        booster = old.refit(data.matrix, data.label, decay_rate=self.decay, dataset_params=parameters)
        probe = data.matrix[:_PROBE_ROWS]
        before, after = (model.predict(probe, pred_leaf=True, num_threads=1) for model in (old, booster))
        check_prefix("LightGBM", before=before, after=after)
        return booster

    def _parameters(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        # By their main names: a model that was loaded has these, and they win over any other name in a refit.
        return {
            "objective": _OBJECTIVES[data.schema.task],
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_child_samples,
            "bagging_fraction": self.subsample,
            "bagging_freq": 1 if self.subsample < 1 else 0,  # 0, the library's own, never samples
            "feature_fraction": self.colsample_bytree,
            "lambda_l2": self.reg_lambda,
            "num_threads": threads_for(data.matrix, self.threads),
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,  # else it is chosen by timing, and sums come in another order
            "verbosity": -1,
        } | ({"num_class": len(data.encoder.classes)} if data.encoder.classes else {})

    def _files(self, booster: Any, data: TrainingSet) -> Files:
        # All trees, by -1: the library's own choice would leave out what comes after an early-stopped best one.
        text = booster.model_to_string(num_iteration=-1).encode()
        inputs = inputs_of(data, made_by=_made_by(data.schema.task, data.encoder), content=text)
        return {_MODEL_FILE: text, INPUTS_FILE: inputs.to_bytes()}


class LightGBMModel:
    """A booster as LightGBM's own package asks it; prediction is read-only, so threads may share it."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes)."""
        return _answers(self._booster, matrix)


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the model in `files`; the format holds data only, so nothing but a parent under it needs to be `trusted`.

    It is asked without LightGBM's Python package where its library is found (`leaven.learners.direct.lightgbm`).

    Raises:
        ModelDamaged: the files are incomplete or unreadable.
        leaven.learners.scikit_learn_storage.UntrustedTypes: the parent that it starts from is made of types that
            were not named.
    """
    from leaven.learners.direct.lightgbm import LightGBMRefused, NativeLightGBM, library

    found = library()
    if found is None or kept_base(files):  # installed in a way of its own, or not at all; or two models in one
        return _asked(files, trusted)
    try:
        classes = len(inputs_in(files, FORMAT).classes)
        return NativeLightGBM(found, bytes(whole_file(files, _MODEL_FILE, FORMAT)), classes=classes)
    except LightGBMRefused as error:
        raise ModelDamaged(FORMAT, str(error)) from error


def _library() -> Any:
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # OSError: the system has no libgomp
        mend = 'Install it: pip install "leaven[lightgbm]".'
        raise BadDefinition("LightGBM", f"lightgbm cannot be imported ({error})", mend) from error
    return lightgbm


def _asked(files: Files, trusted: Collection[str]) -> Model:
    """The model as the package answers it, and the parent that it starts from with it."""
    base = base_in(files, format=FORMAT, trusted=trusted)
    if base is None:
        return LightGBMModel(booster_in(files))
    if _MODEL_FILE not in files:  # not trained yet
        return ResidualModel(base, None)
    booster = booster_in(files)
    return ResidualModel(base, lambda matrix: _answers(booster, matrix))  # its objective makes no probability of it


def _correcting(start: NDArray[np.float64], data: TrainingSet) -> Any:
    """The loss of this label, as the library has it, of rows whose raw scores begin at `start`."""
    label, task = data.label, data.schema.task

    def gradients(raw: NDArray[np.float64], _: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        answers = from_raw(start + raw, task)
        return answers - label, answers * (1 - answers) if task == "binary" else np.ones(len(label))

    return gradients


def _made_by(task: str, encoder: Encoder) -> str:
    classes = f" {len(encoder.classes)}" if encoder.classes else ""
    return f"LightGBM {_OBJECTIVES[task]}{classes}"


def _rounds(booster: Any) -> int:
    """Rounds that a model has grown by; of a label of several classes each is a tree for every class."""
    return int(booster.num_trees()) // int(booster.num_model_per_iteration())


def _rows(data: TrainingSet, parameters: dict[str, Any]) -> Any:
    category = [index for index, (_, kind, _) in enumerate(data.encoder.features) if kind == "category"]
    return _library().Dataset(
        data.matrix,
        data.label,
        feature_name=_columns(data.encoder),
        categorical_feature=category,
        params=parameters,
        free_raw_data=False,  # a parent must be able to answer these rows before it is continued on them
    )


def _columns(encoder: Encoder) -> list[str]:
    # LightGBM takes plain names only; ours are for people, so the position stands in front of a cleaned name.
    return [
        f"{index}_{''.join(c if c.isascii() and c.isalnum() else '_' for c in name)}"
        for index, (name, _, _) in enumerate(encoder.features)
    ]


def booster_in(files: Files) -> Any:
    """Return the library's own object.

    Raises:
        ModelDamaged: the files are incomplete or unreadable.
    """
    # Checked before: a text that is cut off ends the whole process inside LightGBM.
    stored = bytes(whole_file(files, _MODEL_FILE, FORMAT))
    lgb = _library()
    try:
        return lgb.Booster(model_str=stored.decode())
    except (lgb.basic.LightGBMError, UnicodeDecodeError) as error:
        raise ModelDamaged(FORMAT, str(error).splitlines()[0]) from error


def _check_own_words(old: Any, data: TrainingSet, *, objective: str) -> None:
    """The parent's own text must say what its description says: LightGBM itself compares neither."""
    if old.feature_name() != _columns(data.encoder):
        why = f"the parent's own columns are {', '.join(old.feature_name())}, not {', '.join(_columns(data.encoder))}"
        raise CannotLearn("LightGBM", why, _FRESH)
    lines = old.model_to_string(num_iteration=1).splitlines()
    found = next((line for line in lines if line.startswith("objective=")), _OWN)
    own = found.removeprefix("objective=").split(" ")[0]
    if own != objective:
        why = f"the parent's objective is {own}, this label needs {objective}"
        raise CannotLearn("LightGBM", why, _FRESH)


def _answers(booster: Any, matrix: Matrix, *, trees: int = -1) -> NDArray[np.float64]:
    if not len(matrix):
        return np.empty(0)
    # One thread per call: a gateway answers many requests side by side. All trees, whichever was once the best.
    return np.asarray(booster.predict(matrix, num_iteration=trees, num_threads=1), dtype=np.float64)


_AT_LEAST_ONE = ("rounds", "update_rounds", "max_rounds", "min_child_samples")
_SHARES = ("learning_rate", "subsample", "colsample_bytree")


def _check_setting(name: str, given: object) -> None:
    where = f"LightGBM({name}=…)"
    if name == "update_by":
        check_choice(where, given, ("continue", "refit"))
    elif name in _AT_LEAST_ONE:
        check_count(where, given, least=1)
    elif name in ("num_leaves", "threads"):
        check_count(where, given, least=2 if name == "num_leaves" else 0)
    elif name in _SHARES:
        check_share(where, given)
    elif name == "decay":
        check_share(where, given, zero=True)
    else:
        check_weight(where, given)
