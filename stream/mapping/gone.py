"""Rows that say themselves that they are gone, and rows that look like an event of an unknown change stream.

Read as a row that is there, a deletion would be an update. So what may be one is refused, until the mapping
says what it is.
"""

import re
from collections.abc import Collection, Iterator, Sequence

from stream.errors import InvalidInput
from stream.mapping.envelopes import READERS, recognise
from stream.mapping.row import Row

DELETED_BY = {"__$operation": 1, "hvr_op": 0}  # SQL Server, HVR: a deletion's number

# Columns by which tools say in a row itself whether it is gone.
FLAGS = frozenset(
    {
        "__deleted",  # Debezium's flattened envelopes
        "__op",
        "_ab_cdc_deleted_at",  # Airbyte
        "_fivetran_deleted",
        "_sdc_deleted_at",  # Singer, Stitch, Meltano
        "_peerdb_is_deleted",
        "__hevo__marked_deleted",
        "hvr_is_deleted",
        "_deleted",  # CouchDB
        "_change_type",  # Delta Lake
        "_CHANGE_TYPE",  # BigQuery
        "METADATA$ACTION",  # Snowflake
        *DELETED_BY,
        "A_ENTTYP",  # IBM's InfoSphere
        "aud_enttyp",
        "header__change_oper",  # Qlik
    }
)

# Words of people and of change streams, as values of such columns.
HERE = re.compile(
    r"[cir]|[+-]?u|\+?i|insert(ed)?|update(d|_preimage|_postimage)?|upsert|created?|replace|modify|modified"
    r"|load|read|snapshot|refresh|merge|false|f|no?|0|pt|u[bp]|rr|b"
)
DELETED = re.compile("(delete|remove)d?")
GONE = re.compile(DELETED.pattern + "|-?d|dl|del|destroy(ed)?|drop|truncate|purge|erase")
YES = re.compile("true|t|yes|y")
TIME_OR_NUMBER = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|-?[0-9]+(\.[0-9]+)?")
COUNT = re.compile("[02-9]|[0-9]{2,8}")  # of what was deleted, say; a time has more digits
WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")


def _names(phrases: str) -> set[str]:
    """Names of one or more words, with commas between them, in the ways in which people write them."""
    names = set()
    for parts in (phrase.split() for phrase in phrases.split(",")):
        titles = [part.title() for part in parts]
        forms = ["_".join(parts), "-".join(parts), "".join(parts), "_".join(parts).upper()]
        forms += [parts[0] + "".join(titles[1:]), "".join(titles)]
        names |= {prefix + form for form in forms for prefix in ("", "_", "__")}
    return names


# What says which operation an event tells of, and whether a column of this name hardly ever says anything
# else; what such columns stand in; and what an image of the row stands in.
OPERATIONS = {
    **dict.fromkeys(_names("type,kind,action,action type,event,event type,event name,verb"), False),
    **dict.fromkeys(_names("op,op type,operation,operation type,cdc op,cdc operation,dml,dml type"), True),
    **dict.fromkeys(_names("db operation,row kind,change,change type,mod type,crud"), True),
}
ABOUT = _names("metadata,meta,source metadata,header,headers,event,change event header,message,cdc,control")
IMAGES = _names("data,row,record,document,full document,document key,payload,values,columns,dynamodb,image")
IMAGES |= _names("before,after,old,new,old data,new data,old record,new record,old image,new image")

# Columns of a table's own, in which people keep rows that they have deleted.
KEPT = frozenset(_names("deleted,is deleted,deleted at,deleted on") - FLAGS)

SUSPECT = FLAGS | OPERATIONS.keys() | ABOUT  # without any of them a row says nothing of the kind


def says_gone(value: object, column: str, null: Collection[str] = ()) -> bool:
    """Whether a cell says that its row is gone: by a truth, by when it went, or by the name of an operation.

    Args:
        null: spellings of nothing, which says that the row is there.

    Raises:
        InvalidInput: with reason `bad-value`; it says neither.
    """
    if value is None or value != value:
        return False
    if isinstance(value, bool | int | float):
        return value == DELETED_BY[column] if column in DELETED_BY else bool(value)
    if isinstance(value, str):
        if column in DELETED_BY and value.strip().isdecimal():
            return int(value) == DELETED_BY[column]
        text, word = value.strip(), value.strip().casefold()
        if not text or text in null or HERE.fullmatch(word):
            return False
        if YES.fullmatch(word) or GONE.fullmatch(word) or TIME_OR_NUMBER.fullmatch(text):
            return True
    raise InvalidInput("bad-value", f"{column}: {value!r:.80} does not say whether the row is gone")


def columns_to_read(mapped: Collection[str], names: Sequence[str]) -> list[str]:
    """The columns of a file that a row's meaning rests on, each name once.

    Args:
        mapped: columns, or paths into them. If there are none, all are read.
        names: of the file's columns.
    """
    if not mapped or any(name in IMAGES or OPERATIONS.get(name) for name in names):
        return [*dict.fromkeys(names)]
    wanted = {*mapped, *(column.partition(".")[0] for column in mapped)} | SUSPECT
    return [name for name in dict.fromkeys(names) if name in wanted]


def kept_though_deleted(row: Row, read: Collection[str], null: Collection[str] = ()) -> str:
    """The column of a table's own which seems to say that the row is deleted; empty if none does.

    Args:
        read: columns that the mapping reads, and which so mean something else.
    """
    for name in row:
        if name in KEPT and name not in read:
            try:
                is_count = COUNT.fullmatch(str(row[name]).strip())
                if not is_count and says_gone(row[name], name, null):
                    return name
            except InvalidInput:
                continue
    return ""


def other_envelope(row: Row) -> str:
    """A line that says why a row looks like a change event, and what to do; empty if it does not."""
    if envelope := recognise(row):
        return (
            f'this is a change event of {READERS[envelope].title}; set `envelope = "{envelope}"` in the '
            "mapping and name the columns as the table does"
        )
    if found := operation(row):
        path, value = found
        return (
            f'{path} is {value[:40]!r}, as in an event of a change stream: set `deleted = "{path}"` if this '
            'says which rows are gone, and else `envelope = "none"`'
        )
    return ""


def operation(row: Row) -> tuple[str, str] | None:
    """What in a row seems to be the operation of a change event, by its path; None if nothing does."""
    for path, value, has_image in _operations(row):
        whole, last = value.strip().casefold(), "".join(WORD.findall(value)[-1:]).casefold()
        is_clear = OPERATIONS[path.rpartition(".")[2]] or has_image
        is_deletion = DELETED.fullmatch(last) or (is_clear and GONE.fullmatch(whole))
        if is_deletion or (has_image and (HERE.fullmatch(whole) or HERE.fullmatch(last))):
            return path, value
    return None


def _operations(row: Row, before: str = "", depth: int = 2) -> Iterator[tuple[str, str, bool]]:
    """Where a row may name an operation, what is there, and whether a row's image is beside it."""
    has_image = any(isinstance(row[name], dict | list) for name in IMAGES.intersection(row))
    for name in OPERATIONS.keys() & row.keys():
        value = row[name]
        if isinstance(value, str):
            yield before + name, value, has_image
    for name in ABOUT.intersection(row) if depth else ():
        inner = row[name]
        if isinstance(inner, dict):
            for path, value, has_inner in _operations(inner, f"{before}{name}.", depth - 1):
                yield path, value, has_image or has_inner
