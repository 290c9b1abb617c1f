"""What does a row of a file of the past become in the lake, and why would it not?

The answer is SQL over the file's rows. A row with a `fault` is left out; one with a `label_fault` is taken without its
outcome. Ids are digests of content, so a row is recognised when it comes again, in the same file or another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaven.errors import BadDefinition
from leaven.events.labels import Happens
from leaven.loop import FeatureType, Loop
from leaven.storage.rows import LAST_MOMENT, Kind, feature_column
from leaven.storage.tabular import ROW, PastFile, literal, quoted

_KINDS: dict[FeatureType, tuple[Kind, str]] = {
    "category": ("string", "VARCHAR"),
    "text": ("string", "VARCHAR"),
    "float": ("double", "DOUBLE"),
    "int": ("long", "BIGINT"),
    "bool": ("boolean", "BOOLEAN"),
}
_BINARY = ("FLOAT", "DOUBLE")  # what NaN stands for nothing in
_FRACTIONAL = (*_BINARY, "DECIMAL", "VARCHAR")
_TIMES = ("TIMESTAMP", "DATE", "VARCHAR")


@dataclass(frozen=True, slots=True)
class Incoming:
    """Which columns of a file mean what to a loop, and in which columns the lake keeps its features."""

    loop: Loop
    file: PastFile
    time: str
    label_time: str
    unit: str
    kinds: dict[str, Kind]  # feature columns that the table has already

    @property
    def features(self) -> list[tuple[str, FeatureType, bool]]:
        """Name, type and whether required, of the features that the file has."""
        return [feature for feature in self.loop.schema.features if feature[0] in self.file.columns]

    @property
    def absent(self) -> tuple[str, ...]:
        """The features that the file has no column for."""
        return tuple(name for name in self.loop.schema.names if name not in self.file.columns)

    def column(self, feature: str, kind: FeatureType) -> str:
        """Return the column of the lake that keeps a feature of this kind."""
        stored = _KINDS[kind][0]
        clash = self.kinds.get(feature_column(feature), stored) != stored
        return feature_column(feature, beside=stored if clash else None)

    def check(self, *, unit_given: bool) -> None:
        """Refuse a file that lacks a column that is needed, or has one of a type that cannot be meant.

        Raises:
            BadDefinition: it does.
        """
        needed = {"time": self.time, "label": self.loop.label.name, "label time": self.label_time}
        needed |= {"unit": self.unit} if unit_given else {}
        needed |= {f"required feature {name!r}": name for name, _, required in self.loop.schema.features if required}
        where, columns = str(self.file.path), self.file.columns
        for what, name in needed.items():
            if name not in columns:
                raise BadDefinition(where, f"it has no column {name!r} for the {what}", f"It has {', '.join(columns)}.")
        for name in (self.time, self.label_time):
            if not columns[name].startswith(_TIMES):
                raise BadDefinition(
                    where, f"column {name!r} is {columns[name]}, not a time", "Give timestamps or RFC 3339 text."
                )

    def sql(self) -> str:
        """Return the SQL of the rows as the lake takes them: row, at, label_at (microseconds), unit, value, a column
        per feature, fault, label_fault, id."""  # fmt: skip
        label = self.loop.label.name
        unit = f"CAST({quoted(self.unit)} AS VARCHAR)" if self.unit in self.file.columns else "NULL"
        read = [
            f"{quoted(ROW)} AS row", f"{unit} AS unit",
            f'{self._micros(self.time)} AS "at"', f"{self._micros(self.label_time)} AS label_at",
            f"{self._outcome(label)} AS value", f"{self._given(label)} IS NOT NULL AS value_given",
        ]  # fmt: skip
        faults = [f"""WHEN "at" IS NULL OR "at" NOT BETWEEN 0 AND {LAST_MOMENT} THEN 'no time'""",
                  f"WHEN value IS NULL AND value_given THEN {literal(self._no_label)}"]  # fmt: skip
        kept = []
        for index, (name, kind, required) in enumerate(self.features):
            column, given = quoted(self.column(name, kind)), f"given_{index}"
            read += [f"{self._cast(name, kind)} AS {column}", f"{self._given(name)} IS NOT NULL AS {given}"]
            faults.append(f"WHEN {column} IS NULL AND {given} THEN {literal(f'feature {name!r} is no {kind}')}")
            if required:
                faults.append(f"WHEN {column} IS NULL THEN {literal(f'required feature {name!r} is missing')}")
            kept.append((column, literal(name)))
        content = "{" + ", ".join(f"{name}: {column}" for column, name in kept) + "}" if kept else "'{}'"
        digested = f"""concat_ws(chr(31), {literal(self.loop.name)}, "at", coalesce(unit, ''), to_json({content}))"""
        return f"""
            SELECT row, "at", label_at, unit, value, {"".join(f"{column}, " for column, _ in kept)}
                CASE {" ".join(faults)} END AS fault,
                CASE WHEN value IS NULL THEN NULL WHEN label_at IS NULL THEN 'label without a time'
                     WHEN label_at < "at" THEN 'label from before its request' END AS label_fault,
                substr(sha256({digested}), 1, 32) AS id
            FROM (SELECT {", ".join(read)} FROM ({self.file.scan(self._wanted())}))
        """  # noqa: S608

    def predictions(self) -> str:
        """Return the columns of the predictions table, beside seq, day and at, in terms of those of `sql`."""
        features = "".join(f", {quoted(self.column(name, kind))}" for name, kind, _ in self.features)
        return (
            "id, coalesce(unit, id) AS unit, 'live' AS role, 'imported' AS arm, '' AS version, "
            "1.0::DOUBLE AS propensity, NULL::DOUBLE AS answer, 0.0::DOUBLE AS seconds, 0::BIGINT AS revision, "
            f"NULL::VARCHAR AS error{features}"
        )

    def feedback(self) -> str:
        """Return the columns of the feedback table, beside seq, day and at, in terms of those of `sql`."""
        kind = "event" if isinstance(self.loop.label, Happens) else "label"
        return (
            f"{FEEDBACK_ID} AS id, {literal(self.loop.label.name)} AS name, make_timestamptz(label_at) AS received_at, "
            f"'{kind}' AS kind, id AS prediction, NULL::VARCHAR AS unit, value, 'import' AS source"
        )

    @property
    def heard(self) -> str:
        """The condition under which a row gives feedback."""
        event = isinstance(self.loop.label, Happens)  # its feedback is the event itself: no event, no feedback
        return f"fault IS NULL AND label_fault IS NULL AND value {'> 0' if event else 'IS NOT NULL'}"

    def _wanted(self) -> list[str]:
        named = [self.time, self.label_time, self.unit, self.loop.label.name, *(name for name, _, _ in self.features)]
        return [name for name in dict.fromkeys(named) if name in self.file.columns]

    def _hinted(self, name: str, *types: str) -> bool:
        return self.file.columns[name].startswith(types)

    def _given(self, name: str) -> str:
        """A column of the file, NULL where it holds NaN (as files written from data frames do)."""
        column = quoted(name)
        if not self._hinted(name, *_BINARY):
            return column
        number = f"TRY_CAST({column} AS DOUBLE)" if self.file.text else column
        return f"CASE WHEN isnan({number}) THEN NULL ELSE {column} END"

    def _number(self, name: str) -> str:
        """A column of the file as a number, NULL where it is none; truth values are 1 and 0."""
        given = self._given(name)
        number = f"TRY_CAST({given} AS DOUBLE)"
        if self.file.text and self._hinted(name, "BOOLEAN"):
            number = f"coalesce({number}, CAST(TRY_CAST({given} AS BOOLEAN) AS DOUBLE))"
        return f"CASE WHEN isfinite({number}) THEN {number} END"

    def _outcome(self, name: str) -> str:
        """The label's column as the number that the label is: of classes, the place of the one that is named."""
        if not self.loop.classes:
            return self._number(name)
        return f"CAST({place_of(self._cast(name, 'category'), self.loop.classes)} AS DOUBLE)"

    @property
    def _no_label(self) -> str:
        return "the label is none of the classes" if self.loop.classes else "the label is no number"

    def _cast(self, name: str, kind: FeatureType) -> str:
        """A column of the file as its feature's type, NULL where it does not fit."""
        given = self._given(name)
        cast = f"TRY_CAST({given} AS {_KINDS[kind][1]})"
        number = f"TRY_CAST({given} AS DOUBLE)"
        if kind == "float":
            return f"CASE WHEN isfinite({cast}) THEN {cast} END"  # as on the wire
        if kind == "int" and (self.file.text or self._hinted(name, *_FRACTIONAL)):
            return f"CASE WHEN {number} = floor({number}) THEN {cast} END"  # a cast alone would round
        if kind in ("category", "text") and self._hinted(name, *_BINARY):
            # 7.0 and 7 are one category, as on the wire.
            whole = f"CAST(TRY_CAST({number} AS BIGINT) AS VARCHAR)"
            return f"CASE WHEN {number} = floor({number}) THEN coalesce({whole}, {cast}) ELSE {cast} END"
        return cast

    def _micros(self, name: str) -> str:
        column = quoted(name)
        casts = [f"TRY_CAST({column} AS TIMESTAMPTZ)"]
        if self.file.text:
            casts += [f"CAST(try_strptime({column}, {literal(form)}) AS TIMESTAMPTZ)" for form in self.file.formats]
        return f"epoch_us(coalesce({', '.join(casts)}))"


def place_of(column: str, classes: Sequence[str]) -> str:
    """Return the SQL of a class's place among `classes`, from 0; NULL for another text."""
    return f"list_position([{', '.join(map(literal, classes))}], {column}) - 1"


FEEDBACK_ID = "substr(sha256(concat_ws(chr(31), id, value, label_at)), 1, 32)"
