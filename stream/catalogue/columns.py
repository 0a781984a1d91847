"""The first rows of a file, and what was seen of each of their columns."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from model.encoding.values import Kind, recognise
from stream.catalogue.delimited import SEPARATORS, Layout
from stream.catalogue.opening import COMPRESSED, format_of
from stream.catalogue.positions import Order, order_of
from stream.catalogue.rdf import RDF, read_rdf
from stream.catalogue.rows import NumberedRow, check_suffix, column_names, read_rows
from stream.catalogue.sniffing import sniff
from stream.errors import ConfigError, InvalidInput
from stream.events import MAX_ID_CHARS
from stream.mapping.cells import EXACT_WHOLE, NUMBER, WHOLE, comma_number
from stream.mapping.column_types import converter, plain_struct
from stream.mapping.debezium import ReceivedRow, is_envelope, table_of, unwrapped
from stream.mapping.envelopes import changed_rows
from stream.mapping.envelopes import recognise as recognise_envelope
from stream.mapping.gone import FLAGS, operation, says_gone
from stream.mapping.language import LIKELY_NULL, NULL, Envelope
from stream.mapping.positions import is_geometry
from stream.mapping.row import Row, cell

SPELLINGS = frozenset({*NULL, *LIKELY_NULL})  # of nothing
CLEAR_COMMA = re.compile(r",(?!\d{3}\s*$)")
POINT = re.compile(r"-?\d*\.(?!\d{3}$)\d+")
DELETED = re.compile(r"(?i)(.*\.)?(is_?)?(deleted|removed)(_?(at|on|time|date|flag))?")
BASE64 = re.compile("([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
SHORT_BASE64 = 24  # characters: a number of 40 digits
SAMPLE_ROWS = 50_000
SAMPLE_CHARS = 1 << 24  # of all rows together, as Python writes them
RECOGNISED = 500  # values of a column whose kinds are looked at
MAX_DEPTH = 3  # of nested values that are looked into
NAME_CHARS, NAME_WORDS = 40, 6  # longer texts are prose, not names


class ColumnSample(msgspec.Struct):
    """What was seen of one column."""

    name: str
    rows: int  # that have the column
    values: list[object] = []  # that are not blank, lists taken apart
    filled: int = 0  # rows with at least one such value
    lists: int = 0  # rows with several
    is_listed: bool = False  # some rows have a list
    unusable: int = 0  # rows that a feed would refuse, with what is no value of an attribute
    order: Order | None = None  # of latitude and longitude, where the cells are positions

    @property
    def texts(self) -> list[str]:
        return [str(value).strip() for value in self.values]

    @property
    def are_ids(self) -> bool:
        """The values could be ids, and the column can stand in a template."""
        return bool(
            self.values and re.fullmatch("[^{}]+", self.name) and all(_is_id(value) for value in self.values)
        )

    @property
    def ids(self) -> list[str]:
        """The values as ids: 12.0 is 12."""
        return [WHOLE.sub(r"\1", text) if WHOLE.fullmatch(text) else text for text in self.texts]

    @property
    def is_number(self) -> bool:
        """Nearly all values are numbers, written as such or as text."""
        numbers = sum(not isinstance(v, str) or bool(NUMBER.fullmatch(v.strip())) for v in self.values)
        return bool(self.values) and numbers >= 0.95 * len(self.values)

    @property
    def is_text(self) -> bool:
        """Most values are text, and no dates, codes, durations or the like."""
        kinds = Counter(recognise(text) for text in self.texts[:RECOGNISED])
        return kinds[Kind.TEXT] > 0.5 * kinds.total()

    @property
    def is_base64(self) -> bool:
        """The texts are a few bytes in base64, as Connect writes a NUMERIC without its schema."""
        texts = self.texts
        if not texts or not all(len(text) <= SHORT_BASE64 and BASE64.fullmatch(text) for text in texts):
            return False
        return any(text.endswith("=") for text in texts) or 2 * sum(map(_is_mixed, texts)) > len(texts)

    @property
    def says_gone(self) -> bool:
        """Whether every value can say whether its row is gone."""
        try:
            return all(isinstance(says_gone(value, self.name), bool) for value in self.values)
        except InvalidInput:
            return False

    @property
    def is_short(self) -> bool:
        """The texts are short enough for names."""
        return are_short(self.texts)


class Wrapped(msgspec.Struct):
    """How a change stream wrapped the rows of a file."""

    in_envelopes: bool = False
    envelope: Envelope = "auto"  # where the mapping has to name it
    topic: str = ""  # of Debezium's messages
    table: str = ""  # of the first message
    tables: Counter[str] = msgspec.field(default_factory=Counter)  # of all
    deleted: str = ""  # what says which rows are gone


class FileSample(msgspec.Struct):
    """The first rows of a file, and its columns in the order of their first mention."""

    path: Path
    rows: list[Row]
    is_cut: bool  # there are more rows
    columns: dict[str, ColumnSample]
    wrapped: Wrapped
    layout: Layout
    repeated: list[str]  # names that several columns have, which are left out
    decimal_comma: bool
    null: Counter[str]  # spellings of nothing, and how often each was seen; they are no values
    flags: list[str]  # columns that are known to say which rows are gone, and left out
    deleted: ColumnSample | None  # the one that seems to say it, and has to be named
    more: Sequence[Path] = ()  # other files of the same table
    refused: Sequence[str] = ()  # lines that cannot be read; the first with file, number and reason
    in_json: Sequence[str] = ()  # columns that hold JSON as text, which the rows here have decoded

    @property
    def stem(self) -> str:
        """The file's name without its suffixes."""
        path = self.path
        while path.suffix.lower() in (format_of(self.path), *COMPRESSED):
            path = path.with_suffix("")
        stem = re.sub(r"[\W_]*\d+", "", path.name) if self.more and not self.is_rdf else path.name
        return stem or "rows"

    @property
    def word(self) -> str:
        """What its rows may be called: the name's first part; of a topic, `shop.public.film`, the last."""
        if self.wrapped.table:
            return self.wrapped.table
        return self.stem.split(".")[-1 if self.wrapped.in_envelopes else 0] or "rows"

    @property
    def name(self) -> str:
        """What its table or join may be called."""
        return self.word if self.wrapped.in_envelopes else self.stem

    @property
    def is_rdf(self) -> bool:
        return format_of(self.path) in RDF

    def unique(self) -> list[ColumnSample]:
        """The columns that could be the id: full, and different in all rows."""
        return [column for column in self.full() if len(set(column.ids)) == len(self.rows)]

    @property
    def count(self) -> str:
        """How many rows there are, for people."""
        return f"{'the first ' if self.is_cut else ''}{len(self.rows):,} rows"

    def full(self) -> list[ColumnSample]:
        """The columns that could be a part of the id: of texts or whole numbers in all rows."""
        return [
            c
            for c in self.columns.values()
            if c.filled == len(self.rows) and not c.is_listed and c.is_short and c.are_ids
        ]


def read_sample(path: Path, *more: Path) -> FileSample:
    """The first rows of a file, taken out of the envelopes of a change stream.

    As many as `SAMPLE_ROWS`, and no more than have `SAMPLE_CHARS` together, but one.

    Args:
        more: other files of the same table, laid out alike.

    Raises:
        ConfigError: the file cannot be read, has no rows, or holds canonical events, which need no mapping.
    """
    rows: list[Row] = []
    wrapped = Wrapped()
    check_suffix(path)
    layout = sniff(path)
    refused: list[str] = []
    good, left, is_cut = 0, SAMPLE_CHARS, False
    for row in _good_rows([path, *more], layout, refused):
        left -= len(repr(row))
        if is_cut := good == SAMPLE_ROWS or (left < 0 and good > 0):
            break
        good += 1
        if row.get("op") in ("upsert", "delete") and {"source", "id"} <= row.keys():
            raise ConfigError(f"{path} holds canonical events; `sameas feed {path}` needs no mapping")
        rows += _unwrapped(row, wrapped)
    first = f": {len(refused):,} are refused, the first is {refused[0]}" if refused else ""
    if not rows:
        raise ConfigError(f"{path} has no rows to propose a mapping from{first}")
    if len(refused) > good:
        hint = "; is its first line the header?" if format_of(path) in SEPARATORS else ""
        raise ConfigError(f"{path}: {good:,} rows can be read{first}{hint}")
    in_json = _decode_json(rows)
    null: Counter[str] = Counter()
    columns = _columns(rows, null)
    repeated = [name for name, count in Counter(column_names(path, layout)).items() if count > 1]
    for name in repeated:
        columns.pop(name, None)
    if format_of(path) in RDF:  # a column by its last part is enough
        columns = {
            name: column
            for name, column in columns.items()
            if "://" not in name and (name in ("@id", "@type") or name.partition("@")[0] == name)
        }
    between = layout.separator or SEPARATORS.get(format_of(path), ",")
    decimal_comma = between != "," and _read_decimal_commas([*columns.values()])
    flags = sorted(FLAGS & columns.keys())
    for name in flags:
        columns.pop(name)
    gone = (name for name in columns if DELETED.fullmatch(name) and columns[name].says_gone)
    named = [wrapped.deleted] if wrapped.deleted else []
    deleted = next((columns.pop(name) for name in [*named, *gone] if name in columns), None)
    return FileSample(
        path,
        rows,
        is_cut,
        columns,
        wrapped,
        layout,
        repeated,
        decimal_comma,
        null,
        flags,
        deleted,
        more,
        refused,
        in_json,
    )


def _good_rows(paths: Sequence[Path], layout: Layout, refused: list[str]) -> Iterator[Row]:
    """The rows that can be read; others are noted. RDF files are one graph, in which a subject is one row."""
    files: Iterable[tuple[Path, Iterable[NumberedRow]]]
    if format_of(paths[0]) in RDF:
        files = read_rdf(paths, "", encoding=layout.encoding)
    else:
        files = ((path, read_rows(path, layout=layout)) for path in paths)
    for path, rows in files:
        for line, row in rows:
            if isinstance(row, InvalidInput):
                refused.append(f"{path.name}:{line}: {row}" if not refused else "")
            else:
                yield row


def _unwrapped(row: Row, wrapped: Wrapped) -> Iterator[Row]:
    """The rows that a line has, without those that are gone. What wraps them is noted."""
    changes: Sequence[ReceivedRow] = [ReceivedRow(row, is_bare=True)]
    if (envelope := recognise_envelope(row)) or is_envelope(row) or row.keys() == {"schema", "payload"}:
        wrapped.in_envelopes = True
        wrapped.envelope = envelope or wrapped.envelope
        _note_table(row, wrapped)
        try:
            changes = changed_rows(msgspec.json.encode(row), wrapped.envelope)
        except InvalidInput:  # a TRUNCATE, say
            return
    for change in changes:
        if not change.is_gone and not (change.is_bare and _is_gone(change.columns, wrapped)):
            yield change.columns


def _is_gone(row: Row, wrapped: Wrapped) -> bool:
    """Whether a row says itself that it is gone. By which column is noted, unless that is known as one."""
    if not wrapped.deleted and (found := operation(row)):
        wrapped.deleted, _ = found
    named = [wrapped.deleted] if wrapped.deleted else []
    try:
        return any(says_gone(cell(row, name), name, SPELLINGS) for name in (*named, *FLAGS))
    except InvalidInput:
        return False


def _note_table(event: Row, wrapped: Wrapped) -> None:
    """The table of a change event, and the topic to which Debezium sends it where nothing routes it."""
    message, _ = unwrapped(event)
    if not isinstance(message, dict):
        return
    if named := table_of(message):
        wrapped.tables[named] += 1
    if wrapped.table:
        return
    about = message.get("source") or message.get("metadata") or message
    if not isinstance(about, dict):
        return
    table = about.get("table") or about.get("collection") or about.get("table-name")
    if isinstance(table, str):
        wrapped.table = table.rpartition(".")[2]
        database = about.get("schema") or about.get("db") or "SCHEMA"
        wrapped.topic = f"{about.get('name') or 'SERVER'}.{database}.{table}"


def _decode_json(rows: list[Row]) -> list[str]:
    """Decodes the columns whose texts are all JSON objects or lists, and names them. Positions stay texts."""
    found = []
    for name in dict.fromkeys(name for row in rows[:RECOGNISED] for name in row):
        cells = [row.get(name) for row in rows]
        if not any(isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{") for cell in cells):
            continue
        filled = [cell for cell in cells if cell is not None and str(cell).strip() not in ("", *SPELLINGS)]
        texts = [cell for cell in filled if isinstance(cell, str) and cell.strip()[0] in "[{"]
        if not texts or len(texts) < len(filled):
            continue
        if order_of(texts, name) or not any(text.strip() not in ("[]", "{}") for text in texts):
            continue
        try:
            decoded = {text: msgspec.json.decode(text) for text in texts}
        except (msgspec.DecodeError, RecursionError):
            continue
        if any(map(is_geometry, decoded.values())):
            continue
        for number, text in enumerate(cells):
            if isinstance(text, str) and text in decoded:
                rows[number] = {**rows[number], name: decoded[text]}
        found.append(name)
    return found


def _read_decimal_commas(columns: Sequence[ColumnSample]) -> bool:
    """Makes numbers of texts such as `1.234,50`, if that is how the file writes them; says whether it is.

    A comma before three digits says nothing (`52,520`), a comma elsewhere does, and so does a point.
    """
    with_commas, is_clear = [], False
    for column in columns:
        texts = [value for value in column.values if isinstance(value, str)]
        if texts and all(comma_number(text) is not None for text in texts):
            with_commas.append(column)
            is_clear = is_clear or any(map(CLEAR_COMMA.search, texts))
        elif texts and all(POINT.fullmatch(text.strip()) for text in texts):
            return False
    if is_clear:
        for column in with_commas:
            column.values = [comma_number(v) if isinstance(v, str) else v for v in column.values]
            column.order = None  # 41,9 is one number
    return is_clear


def _columns(rows: Sequence[Row], null: Counter[str]) -> dict[str, ColumnSample]:
    """The columns. Spellings of nothing are counted in `null`."""
    paths = dict.fromkeys(name for row in rows for name in _paths(row, MAX_DEPTH))
    objects = {name[:dot] for name in paths for dot, char in enumerate(name) if char == "."}
    columns = {}
    for name in paths:
        if name in objects and not any(_is_value(row.get(name)) for row in rows):
            continue  # null where other rows have an object
        first = name if any(name in row for row in rows) else name.partition(".")[0]
        column = ColumnSample(name, sum(first in row for row in rows))
        cells: list[object] = []  # that are not blank, as they are
        nested = 0  # of these, with what is no value of an attribute
        for row in rows:
            try:
                found = _find(row, name, null)
            except InvalidInput:  # a text where other rows have an object
                column.unusable += 1
                continue
            items = [plain_struct(item) for item in (found if isinstance(found, list) else [found])]
            filled = [item for item in items if item is not None and item == item and str(item).strip()]
            nothing = [text for text in map(str, filled) if text.strip() in SPELLINGS]
            if nothing:
                null.update(text.strip() for text in nothing)
                filled = [item for item in filled if str(item).strip() not in SPELLINGS]
            nested += not all(map(_is_scalar, filled))
            column.is_listed |= isinstance(found, list)
            column.values += filled
            column.filled += bool(filled)
            column.lists += isinstance(found, list) and len(filled) > 1
            cells += [found] if filled else []
        column.order = order_of([c[0] if isinstance(c, list) and len(c) == 1 else c for c in cells], name)
        if column.order is None:
            column.unusable += nested
        else:
            column.unusable += sum(not _fits(cell, column.order.type) for cell in cells)
        columns[name] = column
    return columns


def _paths(row: Row, depth: int, before: str = "") -> Iterator[str]:
    """The columns of a row; of nested objects, also of those in lists, the paths to what is in them."""
    for name, value in row.items():
        inside = value
        if isinstance(value, list):
            inside = next((item for item in value if isinstance(item, Mapping)), None)
        if isinstance(inside, Mapping) and depth and plain_struct(inside) is inside:
            yield from _paths(inside, depth - 1, f"{before}{name}.")
        else:
            yield before + name


def _find(row: Row, name: str, null: Counter[str]) -> object:
    """The cell; a spelling of nothing may stand for an object. Raises InvalidInput for other texts."""
    try:
        return cell(row, name, NULL)
    except InvalidInput:
        null.update(text for text in _texts(row.get(name.partition(".")[0])) if text in SPELLINGS)
        return cell(row, name, SPELLINGS)


def _texts(value: object) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _is_scalar(value: object) -> bool:
    """Whether it can be the value of an attribute, or one of a list."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**64)


def _fits(value: object, logical: str) -> bool:
    """Whether a cell can be read as a type."""
    try:
        return converter(logical)(value) is not None
    except ValueError:
        return False


def _is_id(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < EXACT_WHOLE
    is_text = isinstance(value, str) and len(value) <= MAX_ID_CHARS // 4  # something may stand before it
    return is_text or (isinstance(value, int) and not isinstance(value, bool))


def _is_mixed(text: str) -> bool:
    """Whether capitals and small letters are mixed as in no word."""
    return any(map(str.islower, text)) and any(map(str.isupper, text[1:]))


def _is_value(cell: object) -> bool:
    """Whether a cell says something itself, and not only by what is in it."""
    items = cell if isinstance(cell, list) else [cell]
    return any(
        item is not None and not (isinstance(item, Mapping) and plain_struct(item) is item) for item in items
    )


def are_short(texts: Sequence[str]) -> bool:
    """Whether texts are short enough for names, on average."""
    chars, words = sum(map(len, texts)), sum(len(text.split()) for text in texts)
    return chars <= NAME_CHARS * len(texts) and words <= NAME_WORDS * len(texts)
