"""Messages that nobody should send: noise, damage, wrong types, strange texts and ids, knots of relations."""

import random

import msgspec

from benchmarks.catalogues import FILMS, film
from stream.events import Upsert

Bytes = bytes | None

TEXTS = [
    "",
    " ",
    "\0",
    "a|b",
    "a:b:c",
    "%7C",
    "|",
    ":",
    "../../etc/passwd",
    "x" * 1024,
    "x" * 1025,
    "\u202eright to left",
    "e\u0301\u0301\u0301",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\ufeff",
    "\u0130stanbul",
    "ﬁlm",
    "\u0000\u001f\u007f",
    "🏳️" * 200,
    "NaN",
    "nan",
    "-Infinity",
    "1e400",
    "9" * 5000,
    "null",
    "<script>",
    "'; drop table",
    "a\nb\rc\u2028d",
]
NUMBERS = ["0", "-0.0", "1e308", "1e309", "-1e309", "1e-320", "9" * 400, str(2**63), str(-(2**63) - 1), "NaN"]


def hostile(chance: random.Random) -> tuple[Bytes, Bytes]:
    """A key and a value that nobody should send. Some of them are valid nevertheless."""
    make = chance.choice(
        [_noise, _cut, _deep, _huge_number, _wrong_type, _strange_text, _strange_ids, _knot, _tombstone]
    )
    return make(chance)


def _noise(chance: random.Random) -> tuple[Bytes, Bytes]:
    return chance.randbytes(chance.randrange(20)) or None, chance.randbytes(chance.randrange(1, 300))


def _cut(chance: random.Random) -> tuple[Bytes, Bytes]:
    """A good event with a byte gone, changed or cut off."""
    value = bytearray(msgspec.json.encode(film("left", chance.randrange(FILMS))))
    place = chance.randrange(len(value))
    if chance.random() < 0.3:
        del value[place:]
    elif chance.random() < 0.5:
        del value[place]
    else:
        value[place] ^= 1 << chance.randrange(8)
    return b"left:cut", bytes(value)


def _deep(chance: random.Random) -> tuple[Bytes, Bytes]:
    depth = chance.choice([10, 500, 5_000, 100_000])
    opened, closed = chance.choice([(b"[", b"]"), (b'{"op":', b"}")])
    nested = opened * depth + b"1" + closed * (depth if chance.random() < 0.7 else 0)
    if chance.random() < 0.5:
        nested = (
            b'{"op":"upsert","source":"left","id":"deep","type":"film","attributes":{"a":' + nested + b"}}"
        )
    return b"left:deep", nested


def _huge_number(chance: random.Random) -> tuple[Bytes, Bytes]:
    number, where = chance.choice(NUMBERS), chance.choice(["version", "attribute", "list"])
    event = f'{{"op":"upsert","source":"left","id":"n{chance.randrange(50)}","type":"film"'
    if where == "version":
        return None, f'{event},"version":{number}}}'.encode()
    value = f"[1,{number}]" if where == "list" else number
    return None, f'{event},"attributes":{{"year":{value},"title":"amber birch"}}}}'.encode()


def _wrong_type(chance: random.Random) -> tuple[Bytes, Bytes]:
    event: dict[str, object] = {
        "op": "upsert",
        "source": "left",
        "id": f"w{chance.randrange(50)}",
        "type": "film",
        "attributes": {"title": "amber birch cedar"},
        "relations": {"starring": ["p1"]},
        "version": 1,
    }
    wrong: list[object] = [
        None,
        True,
        1,
        1.5,
        "text",
        [],
        [[]],
        {},
        {"a": {}},
        {"a": None},
        {"": [""]},
        {"a": [None]},
    ]
    event[chance.choice([*event, "surplus"])] = chance.choice(wrong)
    if chance.random() < 0.2:
        event.pop(chance.choice(list(event)))
    return b"left:w", msgspec.json.encode(event)


def _strange_text(chance: random.Random) -> tuple[Bytes, Bytes]:
    """Names, values and types that are no words."""
    values: list[object] = [chance.choice(TEXTS) for _ in range(3)]
    event = {
        "op": "upsert",
        "source": chance.choice(["left", "right"]),
        "id": f"t{chance.randrange(50)}",
        "type": chance.choice(["film", *TEXTS[:9]]),
        "attributes": {
            chance.choice(TEXTS): chance.choice([values, values[0]]),
            "title": chance.choice(TEXTS),
        },
        "relations": {chance.choice(TEXTS): [chance.choice(TEXTS) or "p1", "p2"]},
    }
    raw = msgspec.json.encode(event)
    if chance.random() < 0.2:  # half of a surrogate pair, escaped and raw
        raw = raw.replace(b'"title":"', b'"title":"' + chance.choice([b"\\ud800", b"\xed\xa0\x80"]))
    return None, raw


def _strange_ids(chance: random.Random) -> tuple[Bytes, Bytes]:
    event = {
        "op": chance.choice(["upsert", "delete", "upsert", "drop"]),
        "source": chance.choice(["left", "right", *TEXTS[:9]]),
        "id": chance.choice(TEXTS),
        "type": "film",
        "attributes": {"title": "amber birch cedar"},
    }
    return None, msgspec.json.encode(event)


def _knot(chance: random.Random) -> tuple[Bytes, Bytes]:
    """Relations to itself, in circles, the same one many times, and to many."""
    number, source = chance.randrange(20), chance.choice(["left", "right"])
    targets = [f"k{number}", f"k{(number + 1) % 20}", f"k{(number - 1) % 20}"] * chance.choice([1, 30])
    targets += [f"k{n}" for n in range(chance.choice([0, 0, 0, 20]))]
    event = Upsert(
        source, f"k{number}", "film", {"title": f"knot {number}"}, {"in": targets, "by": targets[:2]}
    )
    return None, msgspec.json.encode(event)


def _tombstone(chance: random.Random) -> tuple[Bytes, Bytes]:
    keys: list[Bytes] = [
        None,
        b"",
        b"no curie",
        b":",
        b"left:",
        b"\xff\xfe",
        b"left:f1|right:f1",
        b"a|b",
        b"left:t1",
    ]
    return chance.choice(keys), None
