"""Writing TOML, which the standard library only reads."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from stream.console import escaped


def tables(path: Sequence[str], table: Mapping[str, object], comment: str = "") -> Iterator[str]:
    """The lines of a table. Mappings in which all is a mapping become tables of their own, below it.

    Args:
        comment: stands behind the table's head, in one line.
    """
    nested = {
        name: value
        for name, value in table.items()
        if isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values())
    }
    if len(nested) < len(table) or not nested or comment:
        yield f"[{'.'.join(map(key, path))}]{f'  # {comment}' if comment else ''}"
    for name, value in table.items():
        if name not in nested:
            yield f"{key(name)} = {inline(value)}"
    for name, group in nested.items():
        for part, below in group.items():
            yield ""
            yield from tables([*path, name, part], below)


def inline(value: object) -> str:
    """A text, number, boolean, list or mapping, in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key(name)} = {inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return escaped(json.dumps(value, ensure_ascii=False))  # JSON's texts are TOML's, if DEL is escaped, too


def key(name: str) -> str:
    """A part of a dotted key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else inline(name)
