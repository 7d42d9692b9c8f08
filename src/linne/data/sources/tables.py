"""A list file as columns of text, each row with the place where a person finds it.

CSV and TSV with a header, JSON Lines (one object a line) and Parquet. Numbers, `true` and `false` become the text that
stands in the file; nothing becomes "". What holds more than that (a list, an object, bytes) is not a column of text.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from linne.data.names import counted, listed, printable
from linne.errors import LinneError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_BYTES = 2 * 2**30
"""A list of ten million rows has about a gigabyte; all of it is held as text while it is read."""
_SHOWN = 5


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """Columns of equal length."""

    columns: Mapping[str, Sequence[str]]
    """By the names that the file gives them, without spaces at their ends."""
    other_columns: tuple[str, ...]
    """Columns that hold something else than text and numbers."""
    unit: str
    """`line` of a text file, or `row` of a Parquet file; both count from 1."""
    places: Sequence[int]
    """The line or row of each row."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.places)


def read_table(path: str, shown: str) -> Table:
    """Return the table in the file `path`, called `shown` in messages; its ending says what kind it is.

    Raises:
        SourceError: it cannot be read, is not of its kind, not UTF-8, or a row has not the columns of the header; the
            message names the line.
        LinneError: a Parquet file, and pyarrow is not installed.
    """
    try:
        size = os.stat(path).st_size
        if size > _MAX_BYTES:
            raise SourceError(f"`{shown}` has {size:,} bytes, more than the {_MAX_BYTES:,} accepted")
        table = READERS[os.path.splitext(path)[1].lower()](path, shown)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, shown) from error
    except OSError as error:
        raise SourceError(f"`{shown}` cannot be read: {(error.strerror or str(error)).lower()}") from error
    if not len(table):
        raise SourceError(f"`{shown}` has a header and no rows" if table.columns else f"`{shown}` is empty")
    return table


def _not_utf8(path: str, shown: str) -> SourceError:
    """Return the error that names the first line that is not UTF-8."""
    again = "save it as UTF-8 (in a spreadsheet: `CSV UTF-8`)"
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return SourceError(f"`{shown}` is UTF-16, expected UTF-8", hint=again)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                found = f"line {number:,} has the byte 0x{line[error.start]:02x}"
                return SourceError(f"`{shown}` is not UTF-8: {found}", hint=again)
    return SourceError(f"`{shown}` is not UTF-8", hint=again)  # the text of a Parquet file


def _read_separated(path: str, shown: str, separator: str) -> Table:
    """Return a CSV or TSV file; where another separator is the only one in its header, that one is taken and noted."""
    notes = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = _header(file, separator, shown)
        if len(header) == 1:
            others = [other for other in (",", ";", "\t") if other in header[0]]
            if len(others) == 1:
                separator = others[0]
                header = _header(file, separator, shown)
                notes.append(f"columns of `{shown}` are separated by `{printable(separator)}`")
        file.seek(0)
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            return _collect(rows, [name.strip() for name in header], shown, notes)
        except csv.Error as error:
            raise SourceError(
                f"line {rows.line_num:,} of `{shown}` cannot be read: {error}",
                hint='a cell that begins with `"` must end with one; write `""` for a quote inside it',
            ) from error


def _header(file: IO[str], separator: str, shown: str) -> list[str]:
    file.seek(0)
    try:
        return next(csv.reader(file, delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise SourceError(f"the first line of `{shown}` cannot be read: {error}") from error


def _collect(rows: Any, names: Sequence[str], shown: str, notes: Sequence[str]) -> Table:
    """Return the rows of a csv reader below their header."""
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise SourceError(f"`{shown}` has two columns called {listed([printable(name) for name in twice])}")
    cells: list[list[str]] = [[] for _ in names]
    places, ragged, num_empty, width = array("q"), [], 0, len(names)
    next(rows, None)
    for row in rows:
        if not any(row):
            num_empty += 1
        elif len(row) != width:
            ragged.append(f"line {rows.line_num:,} has {len(row)}")
        else:
            places.append(rows.line_num)
            for column, cell in zip(cells, row, strict=True):
                column.append(cell)
    if ragged:
        raise SourceError(
            f"`{shown}` has {counted(width, 'column')} in its header, but {_some(ragged)}",
            hint='put quotes around a cell that holds the separator: `"a, b.jpg",cat`',
        )
    notes = [*notes, f"ignored {counted(num_empty, 'empty line')} of `{shown}`"] if num_empty else notes
    # A column without a name is what pandas makes of its row numbers.
    columns = {name: column for name, column in zip(names, cells, strict=True) if name}
    return Table(columns, (), "line", places, tuple(notes))


def _read_json_lines(path: str, shown: str) -> Table:
    # Made once: `json.loads` makes another decoder at every line.
    decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constants).decode
    columns: dict[str, list[str]] = {}
    others: dict[str, None] = {}
    places, bad = array("q"), []
    for number, line in _lines(path):
        try:
            row = decode(line)
            if "\\ud" in line.lower():  # half a character, which no file name and no label can hold
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            bad.append(f"line {number:,} is not JSON ({error})")
            continue
        if not isinstance(row, dict):
            bad.append(f"line {number:,} is not an object")
            continue
        for name, value in row.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = [""] * len(places)
            elif len(column) < len(places):  # earlier rows lack it
                column.extend([""] * (len(places) - len(column)))
            column.append(value if type(value) is str else _text(value, name, others))
        places.append(number)
    if bad:
        raise SourceError(f"`{shown}` cannot be read: {_some(bad)}", hint="write one JSON object a line")
    for column in columns.values():
        column.extend([""] * (len(places) - len(column)))
    return Table({n: c for n, c in columns.items() if n not in others}, tuple(others), "line", places)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line that is not blank."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield number, text


def _text(value: object, name: str, others: dict[str, None]) -> str:
    """Return a JSON value other than a text as text; put the name of its column into `others` where it is nested."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    others[name] = None
    return ""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _no_constants(text: str) -> None:
    raise ValueError(f"{text} is not a JSON value")


def _read_parquet(path: str, shown: str) -> Table:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise LinneError(
            f"`{shown}` needs `pyarrow`, which is not installed", hint="pip install 'linne[lists]'"
        ) from error
    try:
        # A plain file object: given a path, pyarrow would hold the file open, and lock it on Windows.
        with open(path, "rb") as file, parquet.ParquetFile(file) as opened:
            fields = opened.schema_arrow
            texts = [field.name for field in fields if _is_text(field.type)]
            others = tuple(field.name for field in fields if not _is_text(field.type))
            if len(set(fields.names)) != len(fields.names):
                raise SourceError(f"`{shown}` has two columns of one name")
            read = opened.read(columns=texts, use_threads=False)
            num_rows = opened.metadata.num_rows
        columns = {name.strip(): read.column(name).cast(pa.string()).fill_null("").to_pylist() for name in texts}
    except (pa.ArrowException, OSError, ValueError) as error:  # OSError without a number is pyarrow's for damage
        if isinstance(error, UnicodeDecodeError) or getattr(error, "errno", None) is not None:
            raise
        said = printable(str(error).strip()[:200])
        raise SourceError(f"`{shown}` cannot be read as Parquet: {said}") from error
    return Table(columns, others, "row", range(1, num_rows + 1))


def _is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this Arrow type can be had as text."""
    from pyarrow import types

    held = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(held) for test in tests)


def _some(problems: Sequence[str]) -> str:
    """Return the first five problems, and how many more there are."""
    more = f" and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    return ", ".join(problems[:_SHOWN]) + more


READERS: dict[str, Callable[[str, str], Table]] = {
    ".csv": lambda path, shown: _read_separated(path, shown, ","),
    ".tsv": lambda path, shown: _read_separated(path, shown, "\t"),
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
"""How a list is read, by the ending of its name."""
