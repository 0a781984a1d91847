"""Gives hostile and damaged inputs to all that reads some, and sees that each ends in one line.

    python -m benchmarks.fuzz_inputs [-n INPUTS] [--seed SEED] [--only NUMBER]

Files as `feed` and `map` read them, messages of change streams as a worker does, records as `subscribe` does,
models as `train`, `evaluate` and a worker do. Each input is made of a good one, of the seed and of its number
alone, so `--only` repeats one that failed. The last line says what became of them, how long the slowest
took, and how far memory grew.
"""

import argparse
import gzip
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as arrow
import pyarrow.parquet as parquet

from benchmarks.catalogues import train_small
from benchmarks.hostile import NUMBERS, TEXTS
from index.errors import SameasError
from model.checkpoint import ARRAYS, VALUES, content_id
from stream.catalogue.account import Account
from stream.catalogue.opening import format_of
from stream.catalogue.proposing import propose
from stream.catalogue.rdf import RDF
from stream.catalogue.reading import read_events
from stream.config import Settings
from stream.console import printable, shown
from stream.consuming.alignments import decode_event, decode_record
from stream.consuming.export import FORMATS
from stream.consuming.table import row as table_row
from stream.engine.parts import usable_model
from stream.errors import InvalidInput
from stream.events import AlignmentEvent, AlignmentRecord, Cause, Evidence, Message, alignment_key
from stream.mapping.decoder import make_decoder
from stream.mapping.language import Relation, SourceMapping

INPUTS = 100_000
PARQUET_EVERY, MODEL_EVERY = 500, 200  # which take a process and tens of milliseconds
MOST_SECONDS, MOST_MIB = 20.0, 300.0
ROWS = [
    {"id": f"f{n}", "title": f"film {n}", "year": str(1950 + n), "by": f"p{n}; p{n + 1}"} for n in range(8)
]
TABLE = SourceMapping(
    topic="rows",
    file="rows",
    id="id",
    attributes=["title", "year"],
    relations={"by": Relation("by", type="person", separator=";")},
    optional=["title", "by"],
)
GRAPH = msgspec.structs.replace(TABLE, id="@id")
ABOUT = {"database": "shop", "table": "film"}
ENVELOPES: list[dict[str, object]] = [
    dict(ROWS[0]),
    {"op": "u", "before": ROWS[0], "after": ROWS[1], "source": {"db": "shop", "table": "film"}},
    {"schema": {"type": "struct", "fields": []}, "payload": {"op": "c", "before": None, "after": ROWS[0]}},
    {**ROWS[0], "__deleted": "false", "__op": "u"},
    {**ABOUT, "type": "update", "data": ROWS[1], "old": {"title": "film"}},
    {**ABOUT, "type": "INSERT", "isDdl": False, "pkNames": ["id"], "data": ROWS[:2], "old": None},
    {"data": ROWS[0], "metadata": {"operation": "insert", "table-name": "film", "record-type": "data"}},
    {"table": "SHOP.FILM", "op_type": "U", "pos": "1", "before": ROWS[0], "after": ROWS[1]},
]
MARKS = [b'"', b"'", b"\n", b"\r", b",", b"\t", b"\0", b"<<( ", b" )>>", b"<", b">", b"[", b"{", b"\\"]
MARKS += [b"\\u", b"_:", b"\xff\xfe", b"\xed\xa0\x80", b'"""', b"@prefix", b"#", b";", b"sep=;\n", b"^^"]
MARKS += [b"@en", b"NaN", b"\xef\xbb\xbf"]
ALIGNED = AlignmentRecord(
    record_id="r",
    subject_id="left:f1",
    object_id="right:f1",
    subject_category="film",
    object_category="film",
    mapping_justification="semapv:SemanticSimilarityThresholdMatching",
    confidence=0.9,
    mapping_tool_version="0.1.0",
    mapping_date="2026-01-01",
    model="0" * 16,
    revision=1,
    cause=Cause("t", 0, 0),
    evidence=Evidence([], []),
)


class Result(msgspec.Struct):
    """What became of the inputs; `failed` are the numbers of those that ended in anything but one line."""

    outcomes: Counter[str]
    failed: list[int]
    slowest: tuple[float, int]  # seconds, and which
    growth: float  # MiB


class Fuzzer:
    """Makes inputs and gives them to their readers.

    Args:
        folder: for files, with a model in `model`.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self._model = {name: (folder / "model" / name).read_bytes() for name in (VALUES, ARRAYS)}
        self._decode = make_decoder({"s": TABLE}, "entities", "links")

    def run(self, numbers: range) -> Result:
        """Reads the inputs with these numbers."""
        result = Result(Counter(), [], (0.0, -1), 0.0)
        before = _peak()
        for number in numbers:
            chance = random.Random(f"{self._seed}:{number}")
            kind, read = self._kind(number, chance)
            began = time.monotonic()
            try:
                outcome = read(chance)
            except SameasError as error:
                outcome = "refused"
                if "\n" in shown(str(error)):
                    result.failed.append(number)
            except Exception:
                traceback.print_exc()
                outcome = "failed"
                result.failed.append(number)
            result.outcomes[f"{kind} {outcome}"] += 1
            result.slowest = max(result.slowest, (time.monotonic() - began, number))
        result.growth = _peak() - before
        return result

    def _kind(self, number: int, chance: random.Random) -> tuple[str, Callable[[random.Random], str]]:
        if number % PARQUET_EVERY == 0:
            return "Parquet", self._parquet
        if number % MODEL_EVERY == 1:
            return "model", self._damaged_model
        kinds = (("file", self._file), ("message", self._message), ("record", self._record))
        return chance.choices(kinds, (5, 4, 1))[0]

    def _parquet(self, chance: random.Random) -> str:
        path = self._folder / "a.parquet"
        options = {"compression": chance.choice(["zstd", "gzip", "snappy", "none"])}
        parquet.write_table(arrow.Table.from_pylist(_rows(chance)), path, **options)
        path.write_bytes(_damaged(chance, path.read_bytes()))
        return self._rows_of(path, chance)

    def _file(self, chance: random.Random) -> str:
        suffix = chance.choice([".csv", ".tsv", ".jsonl", ".nt", ".ttl"])
        content = _damaged(chance, _text(chance, suffix).encode(errors="surrogatepass"))
        if chance.random() < 0.1:
            content = content.decode("latin-1").encode(chance.choice(["utf-16", "utf-32", "utf-16-le"]))
        packed = chance.choice(["", "", "", ".gz", ".zst"])
        if packed == ".gz":
            content = gzip.compress(content, 1)
        elif packed:
            content = arrow.compress(content, codec="zstd", asbytes=True)
        if packed and chance.random() < 0.3:
            content = _damaged(chance, content)
        path = self._folder / f"a{suffix}{packed}"
        path.write_bytes(content)
        return self._rows_of(path, chance)

    def _rows_of(self, path: Path, chance: random.Random) -> str:
        """As `map` and `feed` read a file."""
        if chance.random() < 0.2:
            propose([path], "s")
            return "proposed"
        table = GRAPH if format_of(path) in RDF else TABLE
        mapping = msgspec.structs.replace(table, topic=None, file=str(path))
        events = [event for _, event in read_events("s", mapping, path.parent, account=Account())]
        refused = sum(isinstance(event, InvalidInput) for event in events)
        return "in part" if 0 < refused < len(events) else "refused" if refused else "read"

    def _message(self, chance: random.Random) -> str:
        """As a worker reads a message of a change stream."""
        content: Any = json.loads(json.dumps(chance.choice(ENVELOPES)))
        for _ in range(chance.randrange(4)):
            content = _spoilt(content, chance)
        value = msgspec.json.encode(content)
        if chance.random() < 0.3:
            value = _damaged(chance, value)
        key = chance.choice([None, b"f1", b'{"id":"f1"}', b'{"schema":{},"payload":{"id":"f1"}}', b"\xff"])
        changes = self._decode(Message(Cause("rows", 0, 0), key, value, 0.0))
        return "read" if changes else "empty"

    def _record(self, chance: random.Random) -> str:
        """As `subscribe` reads and prints a record."""
        event = chance.random() < 0.5
        good: AlignmentRecord = ALIGNED
        if event:
            fields = msgspec.structs.asdict(ALIGNED)
            good = AlignmentEvent(**fields, event="aligned", event_id="0", trigger=None)
        content = msgspec.to_builtins(good)
        for _ in range(chance.randrange(3)):
            content = _spoilt(content, chance)
        value = msgspec.json.encode(content)
        value = _damaged(chance, value) if chance.random() < 0.3 else value
        key = alignment_key(*(str(content.get(f"{side}_id")) for side in ("subject", "object")))
        forged = SimpleNamespace(
            topic="a", partition=0, offset=0, key=key.encode(errors="replace"), value=value, headers=[]
        )
        found = (decode_event if event else decode_record)(forged)
        lines = [table_row("aligned", found)]
        for write in FORMATS.values():
            lines += [cell for cells in write(Settings(), [found]) for cell in cells]
        if any("\n" in printable(line) for line in lines):
            raise AssertionError(f"a record became several lines: {lines}")
        return "read"

    def _damaged_model(self, chance: random.Random) -> str:
        """As `evaluate` and a worker read a model; mostly one whose id is that of what is in it."""
        values, arrays = json.loads(self._model[VALUES]), self._model[ARRAYS]
        if chance.random() < 0.5:
            values = _spoilt(values, chance)
        else:
            arrays = _damaged(chance, arrays)
        if isinstance(values, dict) and chance.random() < 0.8:
            content = {name: value for name, value in values.items() if name not in ("id", "report")}
            values["id"] = content_id(content, arrays)
        spoilt = self._folder / "spoilt"
        spoilt.mkdir(exist_ok=True)
        (spoilt / VALUES).write_text(json.dumps(values))
        (spoilt / ARRAYS).write_bytes(arrays)
        usable_model(spoilt)
        return "usable"


def _rows(chance: random.Random) -> list[dict[str, str]]:
    rows = [dict(row) for row in ROWS]
    for _ in range(chance.randrange(4)):
        chance.choice(rows)[chance.choice([*ROWS[0]])] = chance.choice([*TEXTS, *NUMBERS])
    return rows


def _text(chance: random.Random, suffix: str) -> str:
    rows = _rows(chance)
    if suffix == ".jsonl":
        return "".join(msgspec.json.encode(row).decode() + "\n" for row in rows)
    if suffix in (".nt", ".ttl"):
        return "".join(
            f"<http://x/{row['id']}> <http://x/{name}> {msgspec.json.encode(value).decode()} .\n"
            for row in rows
            for name, value in row.items()
        )
    separator = "," if suffix == ".csv" else "\t"
    lines = [[*rows[0]], *([*row.values()] for row in rows)]
    return "".join(separator.join(cells) + "\n" for cells in lines)


def _damaged(chance: random.Random, content: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(chance.randrange(5)):
        at = chance.randrange(len(found) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            del found[at:]
        elif kind == 1:
            del found[at : at + chance.randrange(1, 20)]
        elif kind == 2 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 3:
            found[at:at] = chance.choice(MARKS) * chance.choice([1, 1, 1, 2, 70, 5_000])
        elif kind == 4:
            found[at:at] = found[max(0, at - 50) : at] * chance.choice([1, 2, 300])
        else:
            found[at:at] = chance.randbytes(chance.randrange(1, 12))
    return bytes(found)


def _spoilt(content: Any, chance: random.Random) -> Any:
    """JSON with one of its parts replaced, lost, doubled or put deep into lists."""
    places = [*_places(content)]
    if not places:
        return content
    inside, name = chance.choice(places)
    kind = chance.randrange(5)
    if kind == 0:
        inside[name] = chance.choice([*TEXTS, None, True, 0, -1, 1.5, 2**63, 1e308, [], {}, [[]], {"": None}])
    elif kind == 1:
        inside[name] = float(f"{chance.randrange(10)}e{chance.randrange(300)}")
    elif kind == 2:
        for _ in range(chance.choice([1, 60, 70, 200])):
            inside[name] = [inside[name]]
    elif kind == 3 and isinstance(inside, dict):
        inside[chance.choice(TEXTS)] = inside[name]
    elif isinstance(inside, dict):
        del inside[name]
    else:
        inside.extend(inside * chance.choice([1, 300]))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Where the parts of JSON stand."""
    waiting = [content]
    while waiting:
        inside = waiting.pop()
        names: Any = inside if isinstance(inside, dict) else range(len(inside))
        for name in names:
            yield inside, name
            if isinstance(inside[name], dict | list):
                waiting.append(inside[name])


def _peak() -> float:
    """MiB of this process; what reads Parquet has a bound of its own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz_inputs", description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=INPUTS, help=f"inputs [{INPUTS}]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one input")
    arguments = parser.parse_args()
    only = arguments.only
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        train_small(Path(folder) / "model")
        started = time.monotonic()
        numbers = range(arguments.n) if only is None else range(only, only + 1)
        result = Fuzzer(arguments.seed, Path(folder)).run(numbers)
    print(f"outcomes: {dict(sorted(result.outcomes.items()))}", file=sys.stderr)
    seconds, slowest = result.slowest
    print(
        f"{result.outcomes.total()} inputs, failed {result.failed}, the slowest ({slowest}) took "
        f"{seconds:.1f} s, memory grew by {result.growth:.0f} MiB ({time.monotonic() - started:.0f} s)"
    )
    sys.exit(0 if not result.failed and seconds < MOST_SECONDS and result.growth < MOST_MIB else 1)


if __name__ == "__main__":
    main()
