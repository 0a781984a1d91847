"""What is said of an aligned pair is the same wherever it is drafted."""

import random
from pathlib import Path

import msgspec

from benchmarks.catalogues import catalogues
from index.entity import node_of
from stream.engine.aligner import Aligner
from stream.engine.deciding import Standing
from stream.engine.pairs import NONE, SAME, PairId
from stream.events import AlignmentRecord, Cause, Delete, Link, Message, Upsert
from stream.mapping.canonical import decode_canonical

MESSAGES = [  # of one partition each, so that they may come in any order
    Message(Cause("t", place, 0), None, msgspec.json.encode(event), float(place))
    for place, event in enumerate(catalogues(10))
]
PASSER = Upsert("left", "x", "film", {"title": "passer by"}, {"starring": ["p1"]})
PAIRS = [PairId(node_of(f"left:f{n}"), node_of(f"right:f{n}"), "left", "right") for n in range(5)]
PEOPLE = PairId(node_of("left:p1"), node_of("right:p2"), "left", "right")
ALIGNED = [*((pair, Standing(0.9, NONE)) for pair in PAIRS), (PEOPLE, Standing(0.2, SAME))]


def test_a_draft_rests_on_graph_links_and_model_alone(tmp_path: Path, checkpoint: Path) -> None:
    """Not on the order of messages, on what came and went, or on what else is drafted."""
    chance = random.Random(26)
    found = []
    for number in range(3):
        aligner = Aligner(tmp_path / str(number), checkpoint, decode_canonical)
        if number:
            passed = (PASSER, Delete("left", "x"))
            for offset, event in enumerate(passed):
                aligner.process([Message(Cause("u", 0, offset), None, msgspec.json.encode(event), 0.0)])
        parts = aligner._parts
        link = Link("left:p1", "right:p2", "same", "ann")
        parts.links.put(link.left, link.right, link, Message(Cause("links", 0, 7), None, None, 1e9))
        aligner.process(chance.sample(MESSAGES, len(MESSAGES)))
        while aligner.backlog:
            aligner.process([])
        alone = [parts.drafts.records([one])[0] for one in ALIGNED]
        assert parts.drafts.records(ALIGNED) == alone
        found.append(alone)
        aligner.close()
    assert found[0] == found[1] == found[2]
    assert any(record.evidence.attributes for record in found[0])


def test_a_withdrawal_is_told_without_what_was_compared(tmp_path: Path, checkpoint: Path) -> None:
    """With its cause: the newest of the two and of those that they are aligned with now."""
    aligner = Aligner(tmp_path / "state", checkpoint, decode_canonical)
    aligner.process(MESSAGES)
    drafts = aligner._parts.drafts
    [record] = drafts.records(ALIGNED[:1])
    assert record.evidence.attributes
    newest = max(MESSAGES, key=lambda message: message.timestamp)
    name = msgspec.json.decode(newest.value or b"", type=Upsert)
    partner = node_of(f"{name.source}:{name.id}")
    for partners, cause in (([], record.cause), ([partner], newest.cause)):
        last: AlignmentRecord = drafts.withdrawn(PAIRS[0], record, partners)
        assert last.cause == cause and last.record_id == record.record_id
        assert not last.evidence.attributes and not last.evidence.neighbours
    aligner.close()
