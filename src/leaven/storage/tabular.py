"""How is a file of past requests read, row by row, whatever its kind?

Parquet has types of its own. CSV and NDJSON are read as text, so that one bad value spoils its row and not the file:
the type that most of a column's values seem to have is only a hint. Every row has a number, from 1 on, in the order of
the file; a line that is no row at all has one too, and a reason.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FileKind = Literal["parquet", "csv", "ndjson"]

ROW = "leaven: row"  # the column of row numbers, beside the file's own, whatever these are called
_ENDINGS: dict[str, FileKind] = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson",
}  # fmt: skip
_READS = "Give a file that ends in .parquet, .csv, .tsv, .ndjson or .jsonl, each but the first also as .gz or .zst."
_SAMPLE = 100_000  # rows of an NDJSON file whose members are its columns
_MEMBERS = "leaven: members"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of the file that is no row."""

    row: int
    reason: str
    content: str


@dataclass(frozen=True, slots=True)
class PastFile:
    """A file whose rows can be read with `scan`."""

    path: Path
    kind: FileKind
    columns: dict[str, str]  # name to DuckDB's type; a hint where the file is text
    formats: tuple[str, ...] = ()  # of times that DuckDB's own cast does not read
    settings: str = field(default="", repr=False)  # how a CSV file was found to be written

    @property
    def text(self) -> bool:
        """Whether `scan` gives every column as text."""
        return self.kind != "parquet"

    def scan(self, wanted: Sequence[str]) -> str:
        """Return the SQL of the rows: number as `ROW`, and the columns `wanted`, NULL where one is missing."""
        listed = "".join(f", {self._column(index, name)} AS {quoted(name)}" for index, name in enumerate(wanted))
        if self.kind == "parquet":
            return f"SELECT file_row_number + 1 AS {quoted(ROW)}{listed} FROM {self._parquet}"  # noqa: S608
        if self.kind == "csv":
            return f"SELECT row_number() OVER () AS {quoted(ROW)}{listed} FROM {self._csv('store_rejects')}"  # noqa: S608
        paths = "[" + ", ".join(literal(_pointer(name)) for name in wanted) + "]"
        members = f"CASE WHEN json_valid(line) THEN json_extract_string(line, {paths}) END AS {quoted(_MEMBERS)}"
        return (
            f"SELECT {quoted(ROW)}{listed} FROM (SELECT {quoted(ROW)}, {members} FROM ({self._lines}) WHERE {_OBJECT})"  # noqa: S608
        )

    def contents(self) -> str:
        """Return the SQL of all rows as they are: number and `content`, JSON."""
        if self.kind == "ndjson":
            return f"SELECT {quoted(ROW)}, CAST(line AS JSON) AS content FROM ({self._lines}) WHERE {_OBJECT}"  # noqa: S608
        number, source = "file_row_number + 1", self._parquet
        if self.kind == "csv":
            number, source = "row_number() OVER ()", self._csv("ignore_errors")
        fields = ", ".join(f"{literal(name)}: {quoted(name)}" for name in self.columns)
        return f"SELECT {number} AS {quoted(ROW)}, to_json({{{fields}}}) AS content FROM {source}"  # noqa: S608

    def rows(self, connection: DuckDBPyConnection) -> int:
        """Return how many rows there are, those that are none not counted."""
        source = {"parquet": self._parquet, "csv": self._csv("ignore_errors"), "ndjson": f"({self._lines})"}[self.kind]
        condition = f" WHERE {_OBJECT}" if self.kind == "ndjson" else ""
        return int(connection.execute(f"SELECT count(*) FROM {source}{condition}").fetchall()[0][0])  # noqa: S608

    def bad_lines(self, connection: DuckDBPyConnection) -> list[BadLine]:
        """Return the lines that are no rows; to be asked once `scan` has been read to its end on this connection."""
        if self.kind == "csv":
            found = connection.execute(
                "SELECT line, min(error_message), min(csv_line) FROM reject_errors GROUP BY line ORDER BY line"
            )
            # The first line is the header. A quoted line break before it makes the number larger than the row's.
            return [BadLine(line - 1, f"it is no row: {why}", content) for line, why, content in found.fetchall()]
        if self.kind == "ndjson":
            found = connection.execute(
                f"SELECT {quoted(ROW)}, line FROM ({self._lines}) WHERE NOT ({_OBJECT}) AND trim(line) <> ''"  # noqa: S608
            )
            return [BadLine(row, "it is no JSON object", line) for row, line in found.fetchall()]
        return []

    def number_in_file(self, row: int, bad: Sequence[BadLine]) -> int:
        """Return the number in the file of the row that `scan` numbers `row`, where bad lines of CSV have none."""
        if self.kind != "csv":
            return row
        # Before the n-th bad line (from 0 on) stand as many good rows as its own number less n and itself.
        return row + bisect_right([line.row - n - 1 for n, line in enumerate(bad)], row - 1)

    def _column(self, index: int, name: str) -> str:
        return f"{quoted(_MEMBERS)}[{index + 1}]" if self.kind == "ndjson" else quoted(name)

    @property
    def _parquet(self) -> str:
        return f"read_parquet({literal(str(self.path))}, file_row_number = true)"

    def _csv(self, errors: str) -> str:
        limit = ", rejects_limit = 0" if errors == "store_rejects" else ""
        return f"read_csv({literal(str(self.path))}, {errors} = true{limit}{self.settings})"

    @property
    def _lines(self) -> str:
        # A separator that no JSON text holds unescaped: each line is one column, whatever is in it.
        options = (
            "columns = {'line': 'VARCHAR'}, delim = '\x01', quote = '', escape = '', header = false, "
            "auto_detect = false, null_padding = true"
        )
        return f"SELECT row_number() OVER () AS {quoted(ROW)}, line FROM read_csv({literal(str(self.path))}, {options})"  # noqa: S608


# As a CASE, which is evaluated in order: `AND` is not, and to ask for the type of what is no JSON is an error.
_OBJECT = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"


def past_file(connection: DuckDBPyConnection, path: Path) -> PastFile:
    """Look at a file; its name says of which kind it is.

    Raises:
        BadDefinition: there is none, its name says nothing, or it cannot be read.
    """
    import duckdb

    endings = [ending.lower() for ending in path.suffixes]
    packed = endings[-1:] in ([".gz"], [".zst"])
    kind = _ENDINGS.get((endings[-2:-1] if packed else endings[-1:] or [""])[0]) if endings else None
    if kind is None or (packed and kind == "parquet"):
        raise BadDefinition(str(path), "its name does not say what it is", _READS)
    if not path.is_file():
        raise BadDefinition(str(path), "there is no such file", _READS)
    try:
        return _looked_at(connection, path, kind)
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise BadDefinition(str(path), f"it cannot be read: {why}", "Give a file that DuckDB reads.") from error


def _looked_at(connection: DuckDBPyConnection, path: Path, kind: FileKind) -> PastFile:
    named = literal(str(path))
    if kind == "csv":
        described = connection.execute(
            f"SELECT Columns, DateFormat, TimestampFormat, Delimiter, Quote, Escape, SkipRows "  # noqa: S608
            f"FROM sniff_csv({named}, header = true, ignore_errors = true)"
        ).fetchall()[0]
        columns = {each["name"]: each["type"] for each in described[0]}
        delimiter, quote, escape = (("" if each in (None, "(empty)") else each) for each in described[3:6])
        settings = (
            f", header = true, delim = {literal(delimiter)}, quote = {literal(quote)}, escape = {literal(escape)}"
        )
        as_text = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
        settings += f", skip = {described[6]}, columns = {{{as_text}}}, auto_detect = false"
        return PastFile(path, kind, columns, tuple(each for each in described[1:3] if each), settings)
    if kind == "parquet":
        found = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({named})").fetchall()  # noqa: S608
        return PastFile(path, kind, {row[0]: row[1] for row in found})
    return PastFile(path, kind, _members(connection, PastFile(path, kind, {})))


def _members(connection: DuckDBPyConnection, file: PastFile) -> dict[str, str]:
    """The members that the first rows of an NDJSON file have, with the types that they seem to have."""
    first = f"SELECT line FROM ({file._lines}) WHERE {_OBJECT} LIMIT {_SAMPLE}"  # noqa: S608
    found = connection.execute(
        f"""SELECT key, list(DISTINCT type) FROM (SELECT m.key, m.type FROM ({first}) l, json_each(l.line) m)
            GROUP BY key ORDER BY key"""  # noqa: S608
    ).fetchall()
    return {key: _hint(set(types) - {"NULL"}) for key, types in found}


def _hint(types: set[str]) -> str:
    if types and types <= {"BIGINT", "UBIGINT", "DOUBLE", "HUGEINT"}:
        return "DOUBLE" if "DOUBLE" in types else "BIGINT"
    return "BOOLEAN" if types == {"BOOLEAN"} else "VARCHAR"


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
