"""How is a recommender fitted and continued by alternating least squares?

A rating is the mean of all, what the user and the item add to it, and the product of their factors, by our own few
lines (`factors`). A yes or no is the product of factors that the `implicit` package fits (Hu, Koren and Volinsky,
"Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008), made a probability by a curve (`chances`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, fields, replace
from typing import Any, Literal

import numpy as np

from leaven.errors import BadDefinition
from leaven.learners.als.chances import Chances
from leaven.learners.als.factors import Numbers, Rows, Side, first_items, with_events, with_ratings
from leaven.learners.als.files import FORMAT, MODEL_FILE, Recommender, recommender_in
from leaven.learners.als.table import Table, table_of
from leaven.learners.bounds import check_choice, check_count, check_share, check_weight, threads_for
from leaven.learners.guards import INPUTS_FILE, check_continues, check_rows, inputs_of
from leaven.training.learner import CannotLearn, Files, Model, TrainingSet
from leaven.values import value

_CURVE_SHARE = 5  # the newest fifth of the rows tells what a product is worth


@value
class ALS:
    """Matrix factorisation: who likes what, from who liked what.

    Two of the loop's category features name user and item; other features are not looked at. For a label that is a
    number the answer is the mean, plus the user's bias, plus the item's, plus the product of their factors; for yes or
    no it is a probability, made of the product of factors and of how often user and item meet a yes. A user or item
    that is not known adds nothing: an unknown user gets the mean and the item's bias, two unknown ones the mean.

    An update solves users and items of the new rows against what is known of the others; all others stay as they are,
    to the bit, and so does the mean. A newcomer is folded in by the exact least-squares solution.

    A yes or no needs the extra `als`; numbers need nothing beside Leaven.

    Args:
        user: Name of the category feature that says who.
        item: Name of the category feature that says what.
        factors: Numbers that describe a user, and an item.
        regularization: Penalty on the square of each factor, in the square of the label's unit; more for fewer rows.
        bias_regularization: The same on biases; only for a label that is a number.
        iterations: Alternations of a model that is fitted from scratch.
        alpha: How much more a row of a yes or no weighs than a pair that was never seen, which counts as a no.
        update_iterations: Alternations of an update.
        update_by: `"refresh"` moves users and items of the new rows, whether new or known; `"fold-in"` adds new users
            and items and leaves every known one as it is.
        decay: Share of their weight that older rows of a user or item keep when it is refreshed, [0, 1]: 1 counts all
            rows alike, less follows what changes.
        threads: Threads used by a fit of yes or no; 0 is one per two million values, up to one per core.

    Raises:
        BadDefinition: a setting is out of its range.
    """

    user: str
    item: str
    factors: int = 32
    regularization: float = 20.0
    _: KW_ONLY
    bias_regularization: float = 2.0
    iterations: int = 10
    alpha: float = 40.0
    update_iterations: int = 2
    update_by: Literal["refresh", "fold-in"] = "refresh"
    decay: float = 1.0
    threads: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_setting(field.name, getattr(self, field.name))
        if self.user == self.item:
            raise BadDefinition("ALS(user, item)", f"both are {self.user!r}", "Name two features.")

    @property
    def format(self) -> str:
        """Plain arrays, which hold numbers only."""
        return FORMAT

    @property
    def stateful(self) -> bool:
        """Always: an update solves users and items of the new rows."""
        return True

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return a model fitted to `data` alone.

        Raises:
            CannotLearn: there are no rows or one class only, one user or one item only, or the features that should
                name them are no categories of the loop.
            BadDefinition: `implicit`, which a yes or no needs, is not installed.
        """
        table = self._table(data)
        for name, codes in ((self.user, table.user), (self.item, table.item)):
            if len(np.unique(codes[codes >= 0])) < 2:
                why = f"the {len(codes)} rows tell of fewer than two values of {name!r}"
                raise CannotLearn("ALS", f"{why}, so there is nothing to compare", "Wait for more, or widen the data.")
        if table.binary:
            rate = float(table.label.mean())
            nothing = table.blank(self.factors, chances=Chances.unknown(rate, table.users, table.items))
            return self._files(self._curved(nothing, table, lambda rows: self._by_implicit(nothing, rows, seed)), data)
        nothing = table.blank(self.factors + 1, mean=float(table.label.mean()))
        start = first_items(table.item, nothing.items, seed=seed)
        return self._files(self._by_ratings(nothing, table, start=start, iterations=self.iterations), data)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent with users and items of `data` solved anew; nothing is drawn.

        Raises:
            CannotLearn: as `fit`, though one user and one item are enough; the parent takes other inputs; or, by
                `"fold-in"`, no user and no item is new.
            ModelDamaged: the parent's file is not what was stored.
        """
        table = self._table(data)
        check_continues("ALS", parent, data, made_by=self._made_by(data))
        old = recommender_in(parent).widened(table.users, table.items)
        if self.update_by == "fold-in":
            old = replace(old, users=old.users.for_newcomers(), items=old.items.for_newcomers())
            if (old.users.moving(table.user) < 0).all() and (old.items.moving(table.item) < 0).all():
                why = f"no user and no item of the {len(table.user)} rows is new"
                raise CannotLearn("ALS", why, 'Wait for newcomers, or use update_by="refresh".')
        if not table.binary:
            made = self._by_ratings(old, table, start=old.items.vectors, iterations=self.update_iterations)
        elif self.update_by == "fold-in":  # another curve would move the answers of those who are known
            made = self._by_events(old, table)
        else:
            made = self._curved(old, table, lambda rows: self._by_events(old, rows))
        return self._files(made, data)

    def _by_ratings(self, old: Recommender, table: Table, *, start: Numbers, iterations: int) -> Recommender:
        rows = Rows(table.user, table.item, np.ones(len(table.label)), table.label - old.mean)
        ridge = np.array([self.bias_regularization, *[self.regularization] * self.factors])
        with _one_blas_thread():
            users, items = with_ratings(
                old.users, old.items, rows, ridge=ridge, iterations=iterations, decay=self.decay, start=start
            )
        return table.counted_by(replace(old, users=users, items=items), decay=self.decay)

    def _by_events(self, old: Recommender, table: Table) -> Recommender:
        with _one_blas_thread():
            users, items = with_events(
                old.users, old.items, table.pairs(self.alpha), ridge=self.regularization, weight=self.alpha,
                iterations=self.update_iterations, decay=self.decay,
            )  # fmt: skip
        return table.counted_by(replace(old, users=users, items=items), decay=self.decay)

    def _by_implicit(self, nothing: Recommender, table: Table, seed: int) -> Recommender:
        from scipy.sparse import csr_matrix

        rows = table.pairs(self.alpha)
        confidence = np.where(rows.target > 0, rows.weight + 1, -(rows.weight + 1))  # below 0: a no that was seen
        met = csr_matrix((confidence, (rows.user, rows.item)), (table.users, table.items), dtype=np.float32)
        with _one_blas_thread():
            model = _library()(
                factors=self.factors, regularization=self.regularization, iterations=self.iterations,
                num_threads=threads_for(confidence, self.threads), random_state=seed,
            )  # fmt: skip
            model.fit(met, show_progress=False)
        users = Side.of(model.user_factors.astype(np.float64), nothing.users.seen[:-1])
        items = Side.of(model.item_factors.astype(np.float64), nothing.items.seen[:-1])
        return table.counted_by(replace(nothing, users=users, items=items), decay=self.decay)

    def _curved(self, old: Recommender, table: Table, made: Callable[[Table], Recommender]) -> Recommender:
        """What is made of all rows, with the curve that fits the newest fifth to what is made of the others."""
        older, newest = table.parted(len(table.label) - max(1, len(table.label) // _CURVE_SHARE))
        before, whole = made(older), made(table)
        assert old.chances is not None
        assert before.chances is not None
        assert whole.chances is not None
        inputs = before.chances.inputs(before.users, before.items, newest.user, newest.item)
        curve = old.chances.fitted(inputs, newest.label, decay=self.decay)
        return replace(whole, chances=replace(whole.chances, curve=curve.curve, precision=curve.precision))

    def _table(self, data: TrainingSet) -> Table:
        if data.schema.task not in ("binary", "regression"):
            mend = "Use another learner, or a label that is a number or yes or no."
            raise CannotLearn("ALS", f"a {data.schema.task} label is neither a number nor yes or no", mend)
        check_rows("ALS", data)
        kinds = {name: kind for name, kind, _ in data.encoder.features}
        for which, name in (("user", self.user), ("item", self.item)):
            if kinds.get(name) != "category":
                known = ", ".join(each for each, kind in kinds.items() if kind == "category") or "none"
                why = f"{name!r}, which should name the {which}, is no category feature of the loop (those are {known})"
                raise CannotLearn("ALS", why, f'Add Feature("{name}", "category"), or name another in ALS({which}=…).')
        table = table_of(data, user=self.user, item=self.item)
        if not ((table.user >= 0) & (table.item >= 0)).any():
            why = f"none of the {len(table.label)} rows has both {self.user!r} and {self.item!r}"
            raise CannotLearn("ALS", why, "Send both with each request.")
        return table

    def _made_by(self, data: TrainingSet) -> str:
        return f"ALS {data.schema.task}, {self.user} and {self.item}, {self.factors} factors"

    def _files(self, made: Recommender, data: TrainingSet) -> Files:
        content = made.to_bytes()
        inputs = inputs_of(data, made_by=self._made_by(data), content=content)
        return {MODEL_FILE: content, INPUTS_FILE: inputs.to_bytes()}


def load_model(files: Files, *, trusted: Collection[str] = ()) -> Model:
    """Return the model in `files`; the format holds data only, so nothing needs to be `trusted`.

    Raises:
        ModelDamaged: the files are incomplete or unreadable.
    """
    return recommender_in(files)


def _library() -> Any:
    try:
        # Its front door would choose a graphics card where there is one.
        from implicit.cpu.als import AlternatingLeastSquares
    except (ImportError, OSError) as error:
        mend = 'Install it: pip install "leaven[als]".'
        raise BadDefinition("ALS", f"implicit cannot be imported ({error})", mend) from error
    return AlternatingLeastSquares


def _one_blas_thread() -> Any:
    """Sums come in one order whatever the machine; many small products gain nothing from more threads."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


_AT_LEAST_ONE = ("factors", "iterations", "update_iterations")


def _check_setting(name: str, given: object) -> None:
    where = f"ALS({name}=…)"
    if name in ("user", "item"):
        if not isinstance(given, str) or not given:
            raise BadDefinition(where, f"{given!r} names no feature", "Name a category feature of the loop.")
    elif name == "update_by":
        check_choice(where, given, ("refresh", "fold-in"))
    elif name in _AT_LEAST_ONE or name == "threads":
        check_count(where, given, least=0 if name == "threads" else 1)
    elif name == "decay":
        check_share(where, given, zero=True)
    else:
        check_weight(where, given)
        if given == 0 and name != "alpha":
            raise BadDefinition(where, "without a penalty one row would decide everything", "Use a number above 0.")
