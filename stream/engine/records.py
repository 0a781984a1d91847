"""From decisions to what goes out: alignment records, their tombstones, and alignment events with evidence.

Invariant: the store holds the record of every aligned pair as it was last put into the outbox, and the
confidence that the pair's last event told. A record goes out as `stream/engine/drafts.py` makes it, so every
run over the same log ends with the same records. An event goes out only where the record changed, and of a
confidence only where it is `min_change` or more from what was told: so many small steps are told in the end.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Final, Literal, NamedTuple

import msgspec
import xxhash

from index import tables
from index.entity import node_key
from index.store import Store
from stream.engine.deciding import Deciding, Decision
from stream.engine.drafts import CONFIDENCE_DIGITS, Drafts
from stream.engine.interface import Output
from stream.engine.pairs import PairId
from stream.engine.triggers import Triggers
from stream.events import AlignmentEvent, AlignmentRecord, Trigger, alignment_key, split_curie

TELLING: Final = (  # fields of which any change is an event
    "mapping_justification",
    "model",
    "subject_category",
    "object_category",
)
_TOLD: Final = struct.Struct(">IH")
_PROMOTION: Final = Trigger("promotion")
EventKind = Literal["aligned", "revised", "withdrawn"]


@dataclass
class Difference:
    """What records that take the place of others change, in pairs."""

    former: int = 0  # that were aligned
    changed: int = 0
    withdrawn: int = 0

    @property
    def share_withdrawn(self) -> float:
        """Of all that were aligned."""
        return self.withdrawn / max(self.former, 1)


class Told(NamedTuple):
    """What the log of events says of a pair."""

    events: int
    confidence: int  # of the last one, in steps of the last digit


class Records:
    """Keeps the records of aligned pairs. Writes are pending until the store commits.

    Args:
        min_change: the least change of a confidence, 0 to 1, that is an event; with 0 every change of a
            record is one.
    """

    def __init__(
        self, store: Store, deciding: Deciding, drafts: Drafts, triggers: Triggers, min_change: float = 0.0
    ) -> None:
        self._store = store
        self._deciding = deciding
        self._drafts = drafts
        self._triggers = triggers
        # .07 * 10,000 is a little more than 700
        self._least = math.ceil(min_change * 10**CONFIDENCE_DIGITS - 1e-6)
        self._decode = msgspec.json.Decoder(AlignmentRecord).decode

    def outputs(self, decisions: Sequence[Decision]) -> list[Output]:
        """Records and events for the pairs whose record is not what it was."""
        stored = self._store.get_many([_key(decision.pair) for decision in decisions])
        aligned = [
            (decision.pair, decision.standing) for decision in decisions if decision.standing is not None
        ]
        current = dict(zip((pair for pair, _ in aligned), self._drafts.records(aligned), strict=True))
        changed: dict[PairId, tuple[AlignmentRecord | None, AlignmentRecord | None]] = {}
        for decision, raw in zip(decisions, stored, strict=True):
            old = None if raw is None else self._decode(raw)
            new = current.get(decision.pair)
            if _differ(old, new):
                changed[decision.pair] = (old, new)
        outputs: list[Output] = []
        told = self._told(_key(pair) for pair in changed)
        for (pair, (old, new)), before in zip(changed.items(), told, strict=True):
            # the same may happen to a pair twice, with one cause: a neighbour goes, comes, and goes again
            mark = f"after {before.events}" if before.events else ""
            confidence = before.confidence
            if new is not None:
                self._store.put(_key(pair), msgspec.json.encode(new))
                outputs.append(_alignment(new))
                if not self._is_event(old, new, confidence):
                    continue
                kind: EventKind = "aligned" if old is None else "revised"
                outputs.append(_event(kind, new, mark, self._trigger(pair, old, new)))
                confidence = _steps(new)
            elif old is not None:
                self._store.delete(_key(pair))
                last = self._last(pair, old)
                outputs += _withdrawal(last, mark, self._trigger(pair, old, last))
            self._tell(_key(pair), Told(before.events + 1, confidence))
        return outputs

    def supersede(self, former: "Records", mark: str, difference: Difference) -> Iterator[list[Output]]:
        """For each pair where these records say something else than `former`: what to publish.

        A pair that is no longer aligned is withdrawn in the name of this model. Of what these records have
        told nothing has gone out: from now on what `former` has told counts.

        Args:
            difference: is counted in.
        """
        sides = (_marked(0, former.scan()), _marked(1, self.scan()))
        for key, group in groupby(merge(*sides), key=itemgetter(0)):
            said = {side: self._decode(value) for _, side, value in group}
            old, new = said.get(0), said.get(1)
            difference.former += old is not None
            differ = _differ(old, new)
            difference.changed += differ
            difference.withdrawn += new is None
            if new is not None:
                [told], [own] = former._told([key]), self._told([key])
                is_event = differ and self._is_event(old, new, told.confidence)
                self._tell(key, Told(own.events, _steps(new) if is_event else told.confidence))
                outputs = [_alignment(new)] if differ else []
                if is_event:
                    outputs.append(_event("aligned" if old is None else "revised", new, mark, _PROMOTION))
                if outputs:
                    yield outputs
            elif old is not None:
                left, right = (int.from_bytes(key[at : at + 8], "big") for at in (1, 9))
                sources = [split_curie(name)[0] for name in (old.subject_id, old.object_id)]
                yield _withdrawal(self._last(PairId(left, right, *sources), old), mark, _PROMOTION)

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """Every record under its key in the store, in the order of these keys."""
        yield from self._store.scan(tables.RECORDS)

    def all(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every record."""
        for _, value in self.scan():
            record = self._decode(value)
            yield alignment_key(record.subject_id, record.object_id).encode(), value

    def _is_event(self, old: AlignmentRecord | None, new: AlignmentRecord, told: int) -> bool:
        """Whether a change of the record is told in the log, which has told this confidence."""
        if old is None or any(getattr(old, name) != getattr(new, name) for name in TELLING):
            return True
        return abs(_steps(new) - told) >= self._least

    def _told(self, keys: Iterable[bytes]) -> list[Told]:
        """Of pairs, by the keys of their records."""
        found = self._store.get_many([tables.EVENTS + key[1:] for key in keys])
        return [Told(0, 0) if raw is None else Told(*_TOLD.unpack(raw)) for raw in found]

    def _tell(self, key: bytes, told: Told) -> None:
        self._store.put(tables.EVENTS + key[1:], _TOLD.pack(*told))

    def _trigger(self, pair: PairId, old: AlignmentRecord | None, new: AlignmentRecord) -> Trigger:
        """What made `new` of `old`: an input that the pair itself rests on, or something around it."""
        if old is None:
            is_own = self._triggers.is_new(new.cause)
        else:
            is_own = (old.cause, old.revision) != (new.cause, new.revision)
        return Trigger("input", new.cause) if is_own else self._triggers.around(pair, new.cause)

    def _last(self, pair: PairId, old: AlignmentRecord) -> AlignmentRecord:
        """The record of a pair as its withdrawal tells it."""
        partners = [
            *self._deciding.partners(pair.left, pair.left_source, pair.right_source),
            *self._deciding.partners(pair.right, pair.right_source, pair.left_source),
        ]
        return self._drafts.withdrawn(pair, old, partners)


def _marked(side: int, records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, int, bytes]]:
    return ((key, side, value) for key, value in records)


def _differ(old: AlignmentRecord | None, new: AlignmentRecord | None) -> bool:
    """Whether two records of a pair say something else; the date they were made on does not count."""
    if old is None or new is None:
        return old is not new
    return msgspec.structs.replace(new, mapping_date=old.mapping_date) != old


def _steps(record: AlignmentRecord) -> int:
    """The confidence in steps of its last digit."""
    return round(record.confidence * 10**CONFIDENCE_DIGITS)


def _topic_key(record: AlignmentRecord) -> bytes:
    return alignment_key(record.subject_id, record.object_id).encode()


def _alignment(record: AlignmentRecord) -> Output:
    return Output("alignments", _topic_key(record), msgspec.json.encode(record))


def _withdrawal(last: AlignmentRecord, mark: str, trigger: Trigger) -> list[Output]:
    return [Output("alignments", _topic_key(last), None), _event("withdrawn", last, mark, trigger)]


def _event(kind: EventKind, record: AlignmentRecord, mark: str, trigger: Trigger) -> Output:
    """The event of a record; its id is made of what caused it, so a redelivery produces the same.

    What caused it may be no input but a new generation, which is named by `mark`; and what was caused may
    have happened to the pair before, which a mark tells, too.
    """
    key = _topic_key(record)
    made_of = (
        kind,
        key,
        record.model,
        record.revision,
        record.confidence,
        *msgspec.structs.astuple(record.cause),
        *([mark] if mark else []),
    )
    event = AlignmentEvent(
        **{name: getattr(record, name) for name in AlignmentRecord.__struct_fields__},
        event=kind,
        event_id=xxhash.xxh3_128_hexdigest(repr(made_of).encode()),
        trigger=trigger,
    )
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event.event_id,
        "ce_source": "sameas",
        "ce_type": f"sameas.alignment.{kind}",
        "ce_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "content-type": "application/json",
    }
    encoded = [(name, text.encode()) for name, text in headers.items()]
    return Output("alignment_events", key, msgspec.json.encode(event), encoded)


def _key(pair: PairId) -> bytes:
    return tables.RECORDS + node_key(pair.left) + node_key(pair.right)
