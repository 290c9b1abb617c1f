"""How is a scikit-learn estimator fitted, continued, and asked?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY
from inspect import signature
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.events.labels import Task
from leaven.learners.bounds import check_count
from leaven.learners.continuing import check_classes, go_on, why_not
from leaven.learners.guards import (
    INPUTS_FILE,
    Inputs,
    check_continues,
    check_rows,
    check_takes,
    inputs_in,
    inputs_of,
    widened,
)
from leaven.learners.scikit_learn_storage import MODEL_FILE, estimator_in, first_line, stored
from leaven.learners.surgery_scikit_learn import LINEAR, can_grow, with_columns
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, Model, TrainingSet
from leaven.training.surgery import Proof, change, places, prove, proven
from leaven.values import value


@value
class ScikitLearn:
    """Any scikit-learn estimator or pipeline that has `predict_proba` (classes) or `predict` (a number).

    An update passes the new rows through the steps before the last one as they were fitted. The last step then sees
    them once, where it has `partial_fit`, or grows by `update_rounds` trees, where it is a forest or boosted trees.
    (`SGDClassifier` and its like learn less with every row under their default learning rate, so they are continued
    only with `learning_rate="constant"` or `"adaptive"` and an `eta0`.)

    Where the loop's one feature is text, the estimator gets the texts, as scikit-learn's vectorizers take them; among
    others a text is a column of an object array, for a `ColumnTransformer` to pick by its place. Use
    `HashingVectorizer` where the model is to be continued: words that come later have their place from the start.

    Args:
        estimator: The unfitted estimator; it is copied, its empty `random_state`s are set from the loop's seed.
        categories: `"codes"` hands the estimator one number per category (NaN: unknown); histogram gradient boosting
            is told which columns these are. `"one-hot"` puts one column per category, and scaled numbers without
            gaps, in front of the estimator; of each text the words and pairs of words, hashed to 2^18 columns.
        update_rounds: Trees that an update adds to a forest or to boosted trees; 0 continues by `partial_fit`.
            Histogram gradient boosting that is to grow reads the codes of categories as numbers: the codes that it
            would give them itself shift when it goes on.
        max_rounds: An update that would pass this many trees is refused, so that a model cannot grow for ever.
        trusted: Full names of types of your own that the fitted model contains, such as `"features.Ratio"`.

    Raises:
        BadDefinition: the estimator cannot be fitted and asked, or a setting is none of those there are.
    """

    estimator: Any
    _: KW_ONLY
    categories: Literal["codes", "one-hot"] = "codes"
    update_rounds: int = 0
    max_rounds: int = 2000
    trusted: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "trusted", tuple(self.trusted))
        if (
            isinstance(self.estimator, type)
            or not hasattr(self.estimator, "fit")
            or not hasattr(self.estimator, "get_params")
        ):
            what = f"{self.estimator!r} is no scikit-learn estimator"
            raise BadDefinition("ScikitLearn(estimator)", what, "Give an unfitted one, such as LogisticRegression().")
        if self.categories not in ("codes", "one-hot"):
            what = f"{self.categories!r} is no way to pass categories"
            raise BadDefinition("ScikitLearn(categories=…)", what, 'Use "codes" or "one-hot".')
        check_count("ScikitLearn(update_rounds=…)", self.update_rounds, least=0)
        check_count("ScikitLearn(max_rounds=…)", self.max_rounds, least=1)

    def __repr__(self) -> str:
        shown = [_written(self.estimator)]
        if self.categories != "codes":
            shown.append(f'categories="{self.categories}"')
        if self.update_rounds:
            shown.append(f"update_rounds={self.update_rounds}")
        if self.max_rounds != 2000:
            shown.append(f"max_rounds={self.max_rounds}")
        if self.trusted:
            shown.append(f"trusted={list(self.trusted)}")
        return f"ScikitLearn({', '.join(shown)})"

    # Estimators compare by identity; two that are written alike are one definition.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScikitLearn) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All kinds of label."""
        return ("binary", "multiclass", "regression")

    @property
    def reads_text(self) -> bool:
        """Always: the estimator gets the texts."""
        return True

    @property
    def format(self) -> str:
        """A skops archive: types by name, checked against a list before anything is made."""
        return "skops"

    @property
    def stateful(self) -> bool:
        """Whether the last step can go on learning, and would not do it wrongly."""
        return why_not(_last_step(self.estimator), self.update_rounds) is None

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return the estimator fitted to `data` alone.

        Raises:
            CannotLearn: the data has no rows or one class only, or the estimator refuses it.
        """
        check_rows("ScikitLearn", data)
        model = _prepared(self.estimator, data, self.categories, seed, grows=self.update_rounds > 0)
        _check_answers(model, data.schema.task)
        try:
            model.fit(_rows(data), _target(data))
        except (TypeError, ValueError) as error:  # scikit-learn's word for a matrix that it will not take is either
            raise CannotLearn("ScikitLearn", first_line(error), _REFUSED) from error
        check_classes(model, _classes(data), in_part=data.schema.task == "multiclass")
        return self._files(model, data)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent with its last step gone on to `data`; the steps before it stay as they were fitted.

        Raises:
            CannotLearn: the last step cannot go on, the data has no rows or one class only, the parent takes other
                inputs or is another estimator, or the model would pass `max_rounds` trees.
        """
        reason = why_not(_last_step(self.estimator), self.update_rounds)
        if reason is not None:
            raise CannotLearn("ScikitLearn", *reason)
        check_rows("ScikitLearn", data)
        check_continues("ScikitLearn", parent, data, made_by=self._made_by())
        model = estimator_in(parent, self.trusted)
        matrix, last = _rows(data), model
        try:
            while hasattr(last, "steps"):
                matrix, last = last[:-1].transform(matrix) if len(last) > 1 else matrix, last[-1]
            rounds, most, classes = self.update_rounds, self.max_rounds, _known_classes(last, data)
            go_on(last, matrix, _target(data), classes=classes, rounds=rounds, most=most)
        except (TypeError, ValueError) as error:
            raise CannotLearn("ScikitLearn", first_line(error), _REFUSED) from error
        return self._files(model, data)

    @property
    def grows(self) -> bool:
        """Where the estimator is a linear one that goes on by `partial_fit`, behind one-hot categories."""
        return self.stateful and can_grow(self.estimator, self.categories)

    def grow(
        self, parent: Files, *, old: Encoder, new: Encoder, probe: Matrix, trusted: Collection[str] = ()
    ) -> tuple[Files, Proof]:
        """Return the parent's model with the columns of `new` at weights of zero, and the proof.

        Raises:
            CannotLearn: the estimator is none of those that can be grown, the parent does not take `old`, or `new` does
                not hold all of it.
            NotProven: the grown model answers something else.
        """
        if new.reads_text:
            raise CannotLearn("ScikitLearn", "a model that reads text cannot be given columns", "Fit from scratch.")
        if not self.grows:
            why = f"{type(_last_step(self.estimator)).__name__} as it is set cannot be given columns"
            mend = f'Fit a version from scratch, or use {" or ".join(LINEAR)} with categories="one-hot".'
            raise CannotLearn("ScikitLearn", why, mend)
        inputs, stands = check_takes("ScikitLearn", parent, old), places("ScikitLearn", old, new)
        before = ScikitLearnModel(estimator_in(parent, self.trusted), inputs).predict(probe[:, list(stands)])
        model = estimator_in(parent, self.trusted)
        wider = with_columns(model, old=old, new=new, places=stands, probe=probe, prepare=_one_hot)
        grown = {MODEL_FILE: stored(wider, self.trusted), INPUTS_FILE: widened(inputs, new).to_bytes()}
        after = ScikitLearnModel(estimator_in(grown, self.trusted), inputs).predict(probe)
        way = "weights of zero"
        return grown, proven(prove(change(old, new), way=way, probe=[probe], answers={"float64": (before, after)}))

    def _made_by(self) -> str:
        return f"{_written(self.estimator)}, {self.categories}"

    def _files(self, model: Any, data: TrainingSet) -> Files:
        return {
            MODEL_FILE: stored(model, self.trusted),
            INPUTS_FILE: inputs_of(data, made_by=self._made_by()).to_bytes(),
        }


class ScikitLearnModel:
    """A loaded estimator; prediction does not change it, so threads may share it."""

    def __init__(self, estimator: Any, inputs: Inputs) -> None:
        self._estimator, self._task, self._features = estimator, inputs.task, inputs.features
        self._classes = len(inputs.classes)

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes)."""
        return self._answers(matrix, len(matrix))

    def read(self, matrix: Matrix, texts: Mapping[str, NDArray[np.object_]]) -> NDArray[np.float64]:
        """Return one answer per row, as `predict` does, of rows with texts."""
        return self._answers(table(matrix, texts, self._features), len(matrix))

    def _answers(self, rows: Any, count: int) -> NDArray[np.float64]:
        if self._task == "multiclass":
            answers = np.zeros((count, self._classes))
            if count:  # a class that the training rows did not have is given no probability
                answers[:, self._estimator.classes_] = self._estimator.predict_proba(rows)
            return answers
        if not count:
            return np.empty(0)
        answers = self._estimator.predict_proba(rows)[:, 1] if self._task == "binary" else self._estimator.predict(rows)
        return np.asarray(answers, dtype=np.float64).reshape(count)


def table(
    matrix: Matrix, texts: Mapping[str, NDArray[np.object_]], features: Sequence[tuple[str, str]]
) -> NDArray[Any]:
    """Return the rows as estimators take them: the matrix; the texts, where one text is all; or both, as objects.

    Args:
        matrix: Shape (rows, features).
        texts: Each of shape (rows,), by feature.
        features: Names and types, in order.
    """
    if not texts:
        return matrix
    if len(features) == 1:
        return texts[features[0][0]]
    mixed = matrix.astype(object)
    for place, (name, kind) in enumerate(features):
        if kind == "text":
            mixed[:, place] = texts[name]
    return mixed


def _rows(data: TrainingSet) -> NDArray[Any]:
    return table(data.matrix, data.texts, [(name, kind) for name, kind, _ in data.encoder.features])


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the model in `files` if it is made of known types and of those in `trusted`.

    It answers directly where that is proven equal to the estimator (`leaven.learners.direct`).

    Raises:
        UntrustedTypes: it contains others; nothing of it was made.
        ModelDamaged: the files are incomplete or unreadable.
    """
    from leaven.learners.direct import prefer_direct
    from leaven.learners.direct.scikit_learn import direct_form

    estimator = estimator_in(files, trusted)
    inputs = inputs_in(files, "skops")
    library = ScikitLearnModel(estimator, inputs)
    if inputs.classes or any(kind == "text" for _, kind in inputs.features):
        return library
    return prefer_direct(library, lambda: direct_form(estimator, task=inputs.task), inputs)


_REFUSED = 'Handle gaps and scales in a pipeline, or use categories="one-hot", which fills gaps.'


def _prepared(estimator: Any, data: TrainingSet, categories: str, seed: int, *, grows: bool) -> Any:
    """An unfitted copy with the loop's seed, and with the category columns made known to it."""
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline

    copy = clone(estimator)
    empty = [name for name, given in copy.get_params().items() if name.endswith("random_state") and given is None]
    copy.set_params(**dict.fromkeys(sorted(empty), seed))
    kinds = [kind for _, kind, _ in data.encoder.features]
    category = [index for index, kind in enumerate(kinds) if kind == "category"]
    if categories == "one-hot":
        text = [index for index, kind in enumerate(kinds) if kind == "text"]
        if len(kinds) == len(text) == 1:
            return make_pipeline(_hashed(), copy)
        return make_pipeline(_one_hot(category, [i for i in range(len(kinds)) if i not in category + text], text), copy)
    if getattr(copy, "categorical_features", None) == "from_dtype":  # histogram gradient boosting, left at its default
        known = data.encoder.categories
        few = [i for i in category if len(known[data.encoder.features[i][0]]) <= copy.max_bins]
        copy.set_params(categorical_features=None if grows else few or None)
    return copy


def _hashed() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=2**18, ngram_range=(1, 2), alternate_sign=False)


def _one_hot(category: list[int], number: list[int], text: Sequence[int] = ()) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scaled = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    return ColumnTransformer(
        [
            ("category", OneHotEncoder(handle_unknown="ignore"), category),
            ("number", scaled, number),
            *((f"text {place}", _hashed(), place) for place in text),
        ]
    )


def _classes(data: TrainingSet) -> list[int]:
    if data.schema.task == "multiclass":
        return list(range(len(data.encoder.classes)))
    return [0, 1] if data.schema.task == "binary" else []


def _known_classes(last: Any, data: TrainingSet) -> list[int]:
    """The classes that a fitted estimator tells apart.

    Raises:
        CannotLearn: the rows have one that it does not know; it could never answer it.
    """
    if data.schema.task != "multiclass":
        return _classes(data)
    known: list[int] = np.asarray(last.classes_).tolist()
    new = sorted(set(data.label.astype(int).tolist()) - set(known))
    if new:
        names = ", ".join(repr(data.encoder.classes[place]) for place in new)
        why = f"the parent was fitted on rows that had no {names}, and could never answer it"
        raise CannotLearn("ScikitLearn", why, "Fit a version from scratch instead.")
    return known


def _target(data: TrainingSet) -> NDArray[Any]:
    return data.label if data.schema.task == "regression" else data.label.astype(np.int64)


def _check_answers(model: Any, task: str) -> None:
    needed = "predict" if task == "regression" else "predict_proba"
    if not hasattr(model, needed):
        why = f"{type(_last_step(model)).__name__} has no {needed}, which a {task} label needs"
        raise CannotLearn("ScikitLearn", why, "Use one that has, or wrap it in CalibratedClassifierCV.")


def _last_step(estimator: Any) -> Any:
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def _written(given: Any) -> str:
    """The expression that makes `given`: an estimator with all that is not at its default, whole and on one line.

    scikit-learn's own printing leaves out what comes after the thirtieth item of a list, and so cannot be digested.
    """
    if isinstance(given, list):
        return f"[{', '.join(map(_written, given))}]"
    if isinstance(given, tuple):
        return f"({', '.join(map(_written, given))}{',' * (len(given) == 1)})"
    if isinstance(given, dict):
        return f"{{{', '.join(f'{_written(key)}: {_written(item)}' for key, item in given.items())}}}"
    if isinstance(given, np.ndarray):
        return f"array({_written(given.tolist())})"
    if isinstance(given, type) or not hasattr(given, "get_params"):
        return str(getattr(given, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(given)))
    usual = {name: parameter.default for name, parameter in signature(type(given)).parameters.items()}
    own = {name: item for name, item in given.get_params(deep=False).items() if repr(item) != repr(usual.get(name))}
    return f"{type(given).__name__}({', '.join(f'{name}={_written(item)}' for name, item in own.items())})"
