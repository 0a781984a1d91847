"""The tables of the store: a prefix of one byte for each."""

from typing import Final

# Tables, by the first byte of their keys.
META: Final = b"m"
ENTITIES: Final = b"e"
HEADS: Final = b"h"
OVERFLOW: Final = b"o"
JOIN_ROWS: Final = b"j"
JOIN_EDGES: Final = b"k"
QUEUE: Final = b"q"
WAITING: Final = b"w"
HUBS: Final = b"u"
SCORED: Final = b"s"
MATCHES: Final = b"a"
RECORDS: Final = b"r"
EVENTS: Final = b"n"
LINKS: Final = b"l"
OUTBOX: Final = b"x"
OFFSETS: Final = b"p"
TRACES: Final = b"t"
LOST: Final = b"y"
WORDS: Final = b"z"
