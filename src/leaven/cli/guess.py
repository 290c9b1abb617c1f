"""Which column of a sample is the time, the label, the unit, a feature, or something not known in time?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leaven.cli.leaks import LATER_WORDS, leaks, outcome_bound, words
from leaven.cli.sample import Column, Sample
from leaven.errors import BadDefinition
from leaven.loop import FeatureType
from leaven.storage.tabular import quoted

_TIME_WORDS = {"time", "timestamp", "at", "ts", "date", "datetime", "created", "event", "request", "served"}
_LABEL_NAMES = {"label", "target", "y", "outcome", "class", "cnt", "response", "converted", "clicked", "churned"}
_LABEL_WORDS = (
    "label", "target", "outcome", "delay", "late", "churn", "fraud", "click", "convert", "conversion", "default",
    "cancel", "purchase", "bought", "return", "volume", "price", "amount", "sales", "demand", "rating", "score",
)  # fmt: skip
_UNIT_WORDS = (
    "user", "customer", "client", "account", "member", "visitor", "session", "device", "tail", "patient", "household",
    "card", "cookie", "driver", "player", "subscriber", "person", "host", "plate",
)  # fmt: skip
_CODE_WORDS = {
    "code", "type", "class", "category", "kind", "zip", "postal", "region", "area", "status", "season", "store", "shop",
    "product", "item", "group", "segment", "model", "plan", "channel", "campaign", "weathersit", "id",
}  # fmt: skip
_MOST_CODES, _MOST_CATEGORIES = 500, 1000
_MOST_CLASSES = 50
_FEWEST_WORDS = 3.0  # on average, from which text is read rather than taken as a category


@dataclass(frozen=True, slots=True)
class Guess:
    """A column, and the reason to take it for what it is taken for."""

    column: str
    why: str


@dataclass(frozen=True, slots=True)
class Guesses:
    """What a sample's columns were taken for."""

    label: Guess
    label_bound: float | None  # above it the outcome is 1; None for a number to be predicted, or classes
    time: Guess | None
    label_time: Guess | None
    unit: Guess | None
    features: dict[str, tuple[FeatureType, str]] = field(default_factory=dict)  # name: type and reason
    left_out: dict[str, str] = field(default_factory=dict)  # name: reason
    classes: tuple[str, ...] = ()  # of an outcome that is text, in alphabetical order


def guess(
    sample: Sample,
    *,
    label: str | None = None,
    time: str | None = None,
    label_time: str | None = None,
    unit: str | None = None,
) -> Guesses:
    """Return what the columns are taken for; a column that is named is taken at its word.

    Raises:
        BadDefinition: a named column is not there, or nothing looks like an outcome.
    """
    _check_named(sample, label, unit)
    when, known = guess_times(sample, time=time, label_time=label_time)
    outcome = Guess(label, "you named it") if label else _guess_label(sample, known)
    whom = Guess(unit, "you named it") if unit else _guess_unit(sample, outcome)
    classes = _classes(sample, outcome.column)
    bound = None if classes else outcome_bound(sample, outcome.column)
    taken = {each.column for each in (when, known, outcome, whom) if each}
    features, left_out = _features(sample, outcome.column, [name for name in sample.columns if name not in taken])
    return Guesses(outcome, bound, when, known, whom, features, left_out, classes)


def guess_times(sample: Sample, *, time: str | None, label_time: str | None) -> tuple[Guess | None, Guess | None]:
    """Return the columns of when a prediction was needed and of when its outcome was known, where there are such.

    Raises:
        BadDefinition: a named column is not there.
    """
    _check_named(sample, time, label_time)
    when = Guess(time, "you named it") if time else _guess_time(sample)
    return when, Guess(label_time, "you named it") if label_time else _guess_label_time(sample, when)


def _check_named(sample: Sample, *names: str | None) -> None:
    for name in names:
        if name is not None and name not in sample.columns:
            raise BadDefinition(str(sample.path), f"it has no column {name!r}", f"It has {', '.join(sample.columns)}.")


def _features(
    sample: Sample, label: str, names: Sequence[str]
) -> tuple[dict[str, tuple[FeatureType, str]], dict[str, str]]:
    """Those of the columns that can be features, with type and reason, and the others with the reason."""
    features: dict[str, tuple[FeatureType, str]] = {}
    leaking, left_out = leaks(sample, label, names), {}
    for name in names:
        kind, why = _feature_type(sample, sample.columns[name])
        if name in leaking or kind is None:
            left_out[name] = leaking.get(name, why)
        else:
            features[name] = (kind, why)
    if not features:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        what = f"no column is left to predict from ({reasons})"
        raise BadDefinition(str(sample.path), what, "Give a sample with the features.")
    return features, left_out


def _guess_time(sample: Sample) -> Guess | None:
    times = [column for column in sample.columns.values() if column.kind == "time" and column.known == column.rows]
    if not times:
        return None

    def likely(column: Column) -> int:
        return (
            2 * len(words(column.name) & _TIME_WORDS)
            - 5 * len(words(column.name) & LATER_WORDS)
            + (column.distinct > 1)
        )

    best = max(times, key=likely)  # the first of equals
    others = f"; {len(times) - 1} other times are there" if len(times) > 1 else ", the only time without gaps"
    return Guess(best.name, f"a {best.sql_type.lower()} in every row{others}")


def _guess_label_time(sample: Sample, when: Guess | None) -> Guess | None:
    """The time that is never before the request's, named like an end."""
    if when is None:
        return None
    for column in sample.columns.values():
        if column.kind != "time" or column.name == when.column or not words(column.name) & LATER_WORDS:
            continue
        inside = sample.value(f"avg(({quoted(column.name)} >= {quoted(when.column)})::INT)")
        if column.known and inside >= 0.99:
            return Guess(column.name, f"a time that is not before {when.column}, known in {column.known} rows")
    return None


def _guess_label(sample: Sample, known: Guess | None) -> Guess:
    scored = [
        (score, why, column.name)
        for column in sample.columns.values()
        for score, why in [_as_label(sample, column, known)]
    ]
    score, why, name = max(scored, key=lambda entry: entry[0], default=(0, "", ""))
    if score < 2:
        mend = "Name it with --label; it must hold numbers, truth values or a few classes."
        raise BadDefinition(str(sample.path), "no column looks like an outcome", mend)
    return Guess(name, why)


def _as_label(sample: Sample, column: Column, known: Guess | None) -> tuple[int, str]:
    """How much this looks like the outcome, and why."""
    if column.kind not in ("integer", "real", "truth", "text") or column.distinct < 2 or _looks_like_unit(column) > 2:
        return 0, ""
    if column.kind == "text" and not 2 < column.distinct <= min(_MOST_CLASSES, 0.05 * column.known):
        return 0, ""
    name = column.name.lower()
    named = name in _LABEL_NAMES
    timed = known is not None and column.known < column.rows and _same_gaps(sample, column.name, known.column)
    if column.kind == "text" and not named and not any(word in name for word in _LABEL_WORDS):
        return 0, ""  # most texts that repeat are categories to predict from
    signs = [
        (2, column.is_flag, "it holds yes or no"),
        (5, named, "its name says outcome"),
        (3, not named and any(word in name for word in _LABEL_WORDS), "its name sounds like an outcome"),
        (2, column.name == list(sample.columns)[-1], "it is the last column"),
        (4, timed, f"it is known exactly when {known.column if known else ''} is"),
    ]
    return sum(worth for worth, holds, _ in signs if holds), "; ".join(why for _, holds, why in signs if holds)


def _classes(sample: Sample, label: str) -> tuple[str, ...]:
    """The classes of an outcome that is text; none of one that is not.

    Raises:
        BadDefinition: it is text, and too many different ones.
    """
    column = sample.columns[label]
    if column.kind != "text":
        return ()
    if not 2 <= column.distinct <= _MOST_CLASSES:
        what = f"column {label!r} holds {column.distinct} different texts, and classes are 2 to {_MOST_CLASSES}"
        raise BadDefinition(str(sample.path), what, "Name another column with --label.")
    return sample.texts(label)


def _guess_unit(sample: Sample, outcome: Guess) -> Guess | None:
    likely = {name: _looks_like_unit(column) for name, column in sample.columns.items() if name != outcome.column}
    name = max(likely, key=lambda each: likely[each], default="")
    if not name or likely[name] < 3:
        return None
    column = sample.columns[name]
    return Guess(name, f"its name sounds like one, and {column.distinct} different ones share {column.rows} rows")


def _looks_like_unit(column: Column) -> int:
    if column.kind not in ("text", "integer") or column.distinct < 2 or column.is_flag:
        return 0
    name = column.name.lower()
    score = 3 * any(word in name for word in _UNIT_WORDS) + (
        bool(words(name) & {"id", "uid", "uuid"}) or name.endswith("id")
    )
    score += (column.kind == "text") + (column.distinct >= 100) - 3 * (column.distinct >= 0.99 * column.known)
    return score - 2 * (column.distinct < 20)


def _feature_type(sample: Sample, column: Column) -> tuple[FeatureType | None, str]:
    """The type of a feature, or None with the reason why the column cannot be one."""
    few = f"{column.distinct} different values"
    if column.distinct < 2:
        return None, "it is the same in every row"
    if column.kind == "text":
        if column.distinct > min(_MOST_CATEGORIES, 0.5 * column.known):
            length = sample.words(column.name)
            if length >= _FEWEST_WORDS:
                return "text", f"text of {length:.0f} words on average"
            return None, f"text with {few}: too many for a category"
        return "category", f"text, {few}"
    if column.is_flag:
        return "bool", "yes or no"
    if column.kind == "integer":
        if words(column.name) & _CODE_WORDS and column.distinct <= _MOST_CODES:
            return "category", f"named like a code, {few}"
        return "int", f"whole numbers, {column.low} to {column.high}"
    if column.kind == "real":
        return "float", f"numbers, {column.low:g} to {column.high:g}"
    if column.kind == "time":
        return None, "a time is no feature: send the parts that matter, such as its hour"
    return None, f"{column.sql_type.lower()} is no feature type"


def _same_gaps(sample: Sample, one: str, other: str) -> bool:
    return bool(sample.value(f"bool_and(({quoted(one)} IS NULL) = ({quoted(other)} IS NULL))"))
