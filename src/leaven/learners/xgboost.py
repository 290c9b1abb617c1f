"""How is a model of boosted trees fitted and continued with XGBoost?

Source: T. Chen and C. Guestrin, "XGBoost: A Scalable Tree Boosting System" (KDD 2016). Continuing appends trees that
are fitted to what the parent leaves unexplained on the new rows; the parent's trees stay as they are. Refreshing keeps
every split and fits the leaves' values anew.
"""

from __future__ import annotations

import json
import warnings
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
    Inputs,
    check_continues,
    check_prefix,
    check_rows,
    check_takes,
    inputs_for,
    inputs_in,
    inputs_of,
    widened,
)
from leaven.learners.residual import Base, ResidualModel, base_in, kept_base
from leaven.learners.surgery_xgboost import Columns, with_classes, with_columns
from leaven.stats.answers import none
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, Model, TrainingSet
from leaven.training.surgery import AddClasses, NewClasses, Proof, change, places, prove, proven
from leaven.values import value

_MODEL_FILE = "model.ubj"
_OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
_NOTHING = {"binary": 0.5, "regression": 0.0}  # the base_score whose raw score is 0
_COLUMN_TYPES = {"category": "c", "float": "float", "int": "int", "bool": "i"}
_PROBE_ROWS = 256
FIRST_SHARE = 0.01  # of the probability, for classes that came
_FRESH = "Fit a version from scratch instead."


@value
class XGBoost:
    """Gradient-boosted trees; the objective follows the label (log loss, or squared error).

    Categories are split natively, missing values take a learnt side.

    Args:
        rounds: Trees of a model that is fitted from scratch.
        max_depth: Depth of a tree; 0 is unlimited.
        eta: How far each tree corrects the ones before it, (0, 1].
        update_rounds: Trees that an update by `"continue"` adds, also to a parent of another kind (`grow_by="residual"`
            of the plan).
        update_by: `"continue"` appends trees; `"refresh"` keeps the parent's splits and fits its leaves to the new rows
            alone, so the model does not grow, and can forget.
        min_child_weight: Least sum of instance weights (second derivatives) in a leaf.
        subsample: Share of rows that each tree sees, (0, 1].
        colsample_bytree: Share of features that each tree sees, (0, 1].
        reg_lambda: L2 penalty on leaf values.
        max_rounds: An update that would pass this many trees is refused, so that a model cannot grow for ever.
        threads: Threads used in training; 0 is one per two million values, up to one per core: on fewer values threads
            mostly wait for each other, which is slow where gateways use the same cores.

    Raises:
        BadDefinition: a setting is out of its range.
    """

    rounds: int = 100
    max_depth: int = 6
    eta: float = 0.3
    _: KW_ONLY
    update_rounds: int = 20
    update_by: Literal["continue", "refresh"] = "continue"
    min_child_weight: float = 1.0
    subsample: float = 1.0
    colsample_bytree: float = 1.0
    reg_lambda: float = 1.0
    max_rounds: int = 2000
    threads: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_setting(field.name, getattr(self, field.name))
        if self.rounds > self.max_rounds:
            what = f"rounds={self.rounds} is more than max_rounds={self.max_rounds}"
            raise BadDefinition("XGBoost", what, "Raise max_rounds or lower rounds.")

    @property
    def soft_labels(self) -> bool:
        """Always: the log loss that is fitted takes a share as it takes 0 and 1."""
        return True

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    @property
    def format(self) -> str:
        """XGBoost's own binary JSON, which holds data only."""
        return "xgboost-ubj"

    @property
    def stateful(self) -> bool:
        """Always: an update appends trees, or fits the leaves anew."""
        return True

    def import_library(self) -> None:
        """Import what trains, which takes as long as training on a few thousand rows."""
        _library()

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return a model of `rounds` trees fitted to `data` alone.

        Raises:
            CannotLearn: the data has no rows, or one class only.
        """
        check_rows("XGBoost", data)
        xgb = _library()
        booster = xgb.train(self._parameters(data, seed), _quantized(data), num_boost_round=self.rounds)
        return self._files(booster, data)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent with `update_rounds` more trees, or with leaves of its own trees, fitted to `data`.

        Raises:
            CannotLearn: the data has no rows or one class only, the parent takes other inputs or has another
                objective, or the model would pass `max_rounds` trees.
        """
        check_rows("XGBoost", data)
        check_continues("XGBoost", parent, data, made_by=_made_by(data.schema.task, data.encoder))
        base = base_in(parent, format=self.format, trusted=data.trusted)
        old = booster_in(parent) if base is None or _MODEL_FILE in parent else None
        if old is not None:
            _check_objective(old, data)
            _check_columns(old, data)
            # A parent fitted with early stopping elsewhere would otherwise hide the new trees from prediction.
            old.set_attr(best_iteration=None, best_score=None)
        if self.update_by == "continue":
            return {**self._files(self._continued(old, base, data, seed), data), **kept_base(parent)}
        if base is not None:
            why = 'update_by="refresh" would leave alone the model that the parent starts from'
            raise CannotLearn("XGBoost", why, f'Use update_by="continue". {_FRESH}')
        return self._files(self._refreshed(old, data, seed), data)

    @property
    def corrects(self) -> bool:
        """Where updates append trees: there are none yet whose leaves could be fitted anew."""
        return self.update_by == "continue"

    def start(self, encoder: Encoder, *, task: str) -> Files:
        """Return a model without trees, which takes what `encoder` gives, for `update` to go on from."""
        return {INPUTS_FILE: inputs_for(encoder, task=task, made_by=_made_by(task, encoder)).to_bytes()}

    @property
    def grows(self) -> bool:
        """Where updates append trees: leaves fitted anew would never look at a new column."""
        return self.update_by == "continue"

    def grow(
        self, parent: Files, *, old: Encoder, new: Encoder, probe: Matrix, trusted: Collection[str] = ()
    ) -> tuple[Files, Proof]:
        """Return the parent's model with the columns of `new` in its text, and the proof that it answers as before.

        Raises:
            UnknownText: the text is of a version that was not tested.
            CannotLearn: the parent does not take `old`, or `new` does not hold all of it; or updates would never use a
                new column.
            NotProven: the grown model answers something else.
        """
        if not self.grows:
            why = 'update_by="refresh" keeps every split, so a new feature would never be used'
            raise CannotLearn("XGBoost", why, f'Use update_by="continue". {_FRESH}')
        inputs = check_takes("XGBoost", parent, old)
        columns = Columns(*_columns(new), places("XGBoost", old, new))
        text = with_columns(bytes(booster_in(parent).save_raw("json")), columns)
        if new.classes != old.classes:
            return self._with_classes(parent, text, inputs, old, new, probe)
        kept = {_MODEL_FILE: bytes(_booster_of(text).save_raw("ubj")), **kept_base(parent)}
        grown = {**kept, INPUTS_FILE: widened(inputs, new).to_bytes()}
        before = _asked(parent, trusted).predict(np.ascontiguousarray(probe[:, list(columns.places)]))
        after = _asked(grown, trusted).predict(probe)
        proof = prove(change(old, new), way="its text", probe=[probe], answers={"float32": (before, after)})
        return grown, proven(proof)

    @property
    def new_classes(self) -> NewClasses | None:
        """Where updates append trees, which the new classes get then."""
        return "surgery" if self.grows else None

    def _with_classes(
        self, parent: Files, text: bytes, inputs: Inputs, old: Encoder, new: Encoder, probe: Matrix
    ) -> tuple[Files, Proof]:
        """The grown parent, and the proof that its margins of the old classes are what they were.

        The new classes together get a share of the probability at first, from which trees can lift them.
        """
        stands = places("XGBoost", old, new)
        before = _answers(booster_in(parent), np.ascontiguousarray(probe[:, list(stands)]), kind="margin")
        count = len(new.classes) - len(old.classes)
        start = float(np.log(np.exp(before).sum(axis=1)).mean() + np.log(FIRST_SHARE / (1 - FIRST_SHARE) / count))
        wider = _booster_of(with_classes(text, count, start=start))
        after = _answers(wider, probe, kind="margin")[:, : len(old.classes)]
        description = widened(inputs, new, made_by=_made_by(inputs.task, new))
        grown = {_MODEL_FILE: bytes(wider.save_raw("ubj")), INPUTS_FILE: description.to_bytes()}
        done = [AddClasses(count, FIRST_SHARE), *([change(old, new)] if old.features != new.features else [])]
        way = "its text; compared are the margins of the old classes"
        proof = prove(done[0] if len(done) == 1 else done, way=way, probe=[probe], answers={"float32": (before, after)})
        return grown, proven(proof)

    def _continued(self, old: Any | None, base: Base | None, data: TrainingSet, seed: int) -> Any:
        """The parent's trees as they are, and more; those of a model that starts from `base` correct that."""
        had = 0 if old is None else old.num_boosted_rounds()
        grown = had + self.update_rounds
        if grown > self.max_rounds:
            why = f"an update would make {grown} trees, more than max_rounds={self.max_rounds}"
            raise CannotLearn("XGBoost", why, "Fit a version from scratch, or raise max_rounds.")
        rows, parameters = _quantized(data), self._parameters(data, seed)
        if base is not None:
            rows.set_base_margin(base.raw(data.matrix))
            parameters["base_score"] = _NOTHING[data.schema.task]
        booster = _library().train(parameters, rows, num_boost_round=self.update_rounds, xgb_model=old)
        if old is not None:
            probe = data.matrix[:_PROBE_ROWS]
            check_prefix("XGBoost", before=_answers(old, probe), after=_answers(booster[:had], probe))
        return booster

    def _refreshed(self, old: Any, data: TrainingSet, seed: int) -> Any:
        """The parent's splits as they are, with leaves of the new rows."""
        parameters = self._parameters(data, seed)
        del parameters["tree_method"]  # no tree is grown, and XGBoost would warn of it
        parameters |= {"process_type": "update", "updater": "refresh", "refresh_leaf": True}
        # Exactly as many rounds as there are: with fewer, XGBoost drops the later trees without a word.
        rounds = old.num_boosted_rounds()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"(?s).*specified the `updater` parameter")  # meant so
            booster = _library().train(parameters, _plain(data), num_boost_round=rounds, xgb_model=old)
        probe = _plain(data, rows=_PROBE_ROWS)
        before, after = (model.predict(probe, pred_leaf=True) for model in (old, booster))
        check_prefix("XGBoost", before=before, after=after)
        return booster

    def _parameters(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        return {
            "objective": _OBJECTIVES[data.schema.task],
            "tree_method": "hist",
            "max_depth": self.max_depth,
            "eta": self.eta,
            "min_child_weight": self.min_child_weight,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample_bytree,
            "lambda": self.reg_lambda,
            "nthread": threads_for(data.matrix, self.threads),
            "seed": seed,
            "verbosity": 1,
        } | ({"num_class": len(data.encoder.classes)} if data.encoder.classes else {})

    def _files(self, booster: Any, data: TrainingSet) -> Files:
        inputs = inputs_of(data, made_by=_made_by(data.schema.task, data.encoder))
        return {_MODEL_FILE: bytes(booster.save_raw("ubj")), INPUTS_FILE: inputs.to_bytes()}


class XGBoostModel:
    """A booster as XGBoost's own package asks it; prediction is read-only, so threads may share it."""

    def __init__(self, booster: Any, *, classes: int = 0) -> None:
        self._booster, self._classes = booster, classes

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes)."""
        return _answers(self._booster, matrix, classes=self._classes)


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the model in `files`; the format holds data only, so nothing but a parent under it needs to be `trusted`.

    It answers directly where that is proven equal to the library (`leaven.learners.direct`).

    Raises:
        ModelDamaged: the files are incomplete or unreadable.
        leaven.learners.scikit_learn_storage.UntrustedTypes: the parent that it starts from is made of types that
            were not named.
    """
    from leaven.learners.direct import prefer_direct
    from leaven.learners.direct.xgboost import NativeBooster, XGBoostRefused, library

    if kept_base(files):  # two models in one
        return _asked(files, trusted)
    stored, found, inputs = _stored(files), library(), inputs_in(files, "xgboost-ubj")
    if found is None or inputs.classes:  # installed in a way of its own, or not at all; or several numbers per row
        return _asked(files, trusted)
    try:
        booster = NativeBooster(found, stored)
    except XGBoostRefused as error:
        raise ModelDamaged("xgboost-ubj", str(error)) from error
    return prefer_direct(booster, booster.form, inputs)


def _library() -> Any:
    try:
        import xgboost
    except ImportError as error:
        mend = 'Install it: pip install "leaven[xgboost]".'
        raise BadDefinition("XGBoost", f"xgboost cannot be imported ({error})", mend) from error
    return xgboost


def _quantized(data: TrainingSet) -> Any:
    names, kinds = _columns(data.encoder)
    return _library().QuantileDMatrix(data.matrix, label=data.label, feature_names=names, feature_types=kinds)


def _plain(data: TrainingSet, *, rows: int | None = None) -> Any:
    """Rows that are not binned: to refresh leaves, their values are needed."""
    names, kinds = _columns(data.encoder)
    matrix, label = data.matrix[:rows], data.label[:rows]
    return _library().DMatrix(matrix, label=label, feature_names=names, feature_types=kinds)


def _columns(encoder: Encoder) -> tuple[list[str], list[str]]:
    # XGBoost refuses [, ] and < in names; ours are for people, so the position stands in front of a cleaned name.
    names = [
        f"{i}_{''.join(c if c not in '[]<' else '_' for c in name)}" for i, (name, _, _) in enumerate(encoder.features)
    ]
    return names, [_COLUMN_TYPES[kind] for _, kind, _ in encoder.features]


def booster_in(files: Files) -> Any:
    """Return the library's own object.

    Raises:
        ModelDamaged: the files are incomplete or unreadable.
    """
    xgb = _library()
    stored = _stored(files)
    # One thread per call: a gateway answers many requests side by side, and a refit sets its own.
    booster = xgb.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(stored))
    except xgb.core.XGBoostError as error:
        raise ModelDamaged("xgboost-ubj", str(error).splitlines()[0]) from error
    return booster


def _stored(files: Files) -> bytes | memoryview:
    if _MODEL_FILE not in files:
        raise ModelDamaged("xgboost-ubj", f"there is no {_MODEL_FILE}")
    if not len(files[_MODEL_FILE]):  # XGBoost itself would abort the process
        raise ModelDamaged("xgboost-ubj", f"{_MODEL_FILE} is empty")
    return files[_MODEL_FILE]


def _asked(files: Files, trusted: Collection[str]) -> Model:
    """The model as the library answers it, and the parent that it starts from with it."""
    base = base_in(files, format="xgboost-ubj", trusted=trusted)
    if base is None:
        return XGBoostModel(booster_in(files), classes=len(inputs_in(files, "xgboost-ubj").classes))
    if _MODEL_FILE not in files:  # not trained yet
        return ResidualModel(base, None)
    booster = booster_in(files)
    return ResidualModel(base, lambda matrix: _answers(booster, matrix, kind="margin"))


def _answers(
    booster: Any, matrix: Matrix, *, classes: int = 0, kind: Literal["value", "margin"] = "value"
) -> NDArray[np.float64]:
    if not len(matrix):
        return none(0, classes)
    # Names were checked when the model was made and the encoder fixes the order, so they are not compared per call.
    answers = booster.inplace_predict(matrix, predict_type=kind, validate_features=False)
    return np.asarray(answers, dtype=np.float64)


def _booster_of(text: bytes) -> Any:
    booster = _library().Booster({"nthread": 1})
    booster.load_model(bytearray(text))
    return booster


def _made_by(task: str, encoder: Encoder) -> str:
    classes = f" {len(encoder.classes)}" if encoder.classes else ""
    return f"XGBoost {_OBJECTIVES[task]}{classes}"


def _check_objective(old: Any, data: TrainingSet) -> None:
    name = json.loads(old.save_config())["learner"]["objective"]["name"]
    if name != _OBJECTIVES[data.schema.task]:
        why = f"the parent's objective is {name}, this label needs {_OBJECTIVES[data.schema.task]}"
        raise CannotLearn("XGBoost", why, _FRESH)


def _check_columns(old: Any, data: TrainingSet) -> None:
    names, _ = _columns(data.encoder)
    if old.feature_names != names:  # refreshing would take them by position
        why = f"the parent's own columns are {', '.join(old.feature_names or ['unnamed'])}, not {', '.join(names)}"
        raise CannotLearn("XGBoost", why, _FRESH)


_AT_LEAST_ONE = ("rounds", "update_rounds", "max_rounds")
_SHARES = ("eta", "subsample", "colsample_bytree")


def _check_setting(name: str, given: object) -> None:
    where = f"XGBoost({name}=…)"
    if name == "update_by":
        check_choice(where, given, ("continue", "refresh"))
    elif name in (*_AT_LEAST_ONE, "max_depth", "threads"):
        check_count(where, given, least=1 if name in _AT_LEAST_ONE else 0)
    elif name in _SHARES:
        check_share(where, given)
    else:
        check_weight(where, given)
