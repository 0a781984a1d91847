"""Verdicts as anybody may write them: counted or refused, and nothing is left of them when they end."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.catalogues import catalogues
from stream.engine.aligner import Aligner
from stream.engine.interface import Counts
from stream.events import Cause, Message, alignment_key
from stream.mapping.decoder import make_decoder
from tests.stream.engine.test_aligner import Topic, messages, run

DECODE = make_decoder({}, "t", "links")
NAMES = st.one_of(
    st.sampled_from(["left:f1", "left:f2", "left:p0", "right:f1", "right:f2", "right:p0", "right:f3", "x:1"]),
    st.sampled_from(["", ":", "left", "left:", ":f1", "left:a|b", "right:%7C", "left:\x1b[2J", "l/r:1"]),
    st.text(max_size=5).map("right:{}".format),
    st.integers(1, 2_000).map(lambda size: "left:" + "y" * size),
)
VERDICTS = st.fixed_dictionaries(
    {"left": NAMES, "right": NAMES, "verdict": st.sampled_from(["same", "different", "same", "maybe", 1])},
    optional={
        "author": st.one_of(st.text(max_size=3), st.integers(0, 3_000).map("a".__mul__)),
        "x": st.none(),
    },
)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=9),
    st.integers(0, 300).map(lambda depth: b'{"left":' + b"[" * depth),
    VERDICTS.map(msgspec.json.encode),
    VERDICTS.map(msgspec.json.encode),
    st.tuples(VERDICTS.map(msgspec.json.encode), st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]]),
)
KEYS = st.one_of(
    st.just(""), st.just(""), st.none(), st.binary(max_size=4), st.builds(alignment_key, NAMES, NAMES)
)


@pytest.fixture(scope="module")
def aligned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Aligner, Topic]:
    """Catalogues without a verdict, which each example leaves as it found them."""
    topic, aligner = Topic(), Aligner(tmp_path_factory.mktemp("links"), checkpoint, DECODE)
    run(aligner, topic, messages(catalogues(6)))
    return aligner, topic


OFFSETS = iter(range(1, 10**9))


def link(key: bytes | None, value: bytes | None) -> Message:
    offset = next(OFFSETS)
    return Message(Cause("links", 0, offset), key, value, float(offset))


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(KEYS, VALUES), max_size=12))
def test_forged_verdicts_stop_nothing_and_leave_nothing(
    aligned: tuple[Aligner, Topic], found: list[tuple[str | bytes | None, bytes | None]]
) -> None:
    aligner, topic = aligned
    before, inputs, pairs = topic.truth(), [], []
    for key, value in found:
        if key == "":  # the right one, if there is one
            try:
                given_pair = msgspec.json.decode(value or b"")
                key = alignment_key(given_pair["left"], given_pair["right"])
                key.encode()
            except (msgspec.MsgspecError, TypeError, KeyError, UnicodeError):
                key = "left:f1|right:f1"
        name = key.encode(errors="replace") if isinstance(key, str) else key
        inputs.append(link(name, value))
    for one in inputs:
        batch = aligner.process([one])
        topic.take(batch)
        assert sum(msgspec.structs.astuple(batch.counts)[1:4]) == batch.counts.received == 1
        assert not batch.reloads and not batch.aside
        if batch.counts.applied and one.value is not None:
            said = msgspec.json.decode(one.value)
            pairs.append(alignment_key(said["left"], said["right"]).encode())
    run(aligner, topic, [link(pair, None) for pair in pairs])
    assert topic.truth() == before and not [*aligner._parts.links._store.scan(b"l")]


def test_a_verdict_moves_an_alignment(aligned: tuple[Aligner, Topic]) -> None:
    """Or the test above would show nothing."""
    aligner, topic = aligned
    before = topic.truth()
    value = msgspec.json.encode({"left": "left:f2", "right": "right:f1", "verdict": "same"})
    batch = aligner.process([link(b"left:f2|right:f1", value)])
    topic.take(batch)
    assert batch.topics == {"links": Counts(1, 1)} and ("left:f2", "right:f1") in topic.pairs()
    run(aligner, topic, [link(b"left:f2|right:f1", None)])
    assert topic.truth() == before
