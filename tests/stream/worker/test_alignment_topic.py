"""What others write to the alignment topic, and a worker makes good."""

from types import SimpleNamespace

import pytest

from index.errors import StateError
from stream.config import Settings
from stream.events import MAX_ID_CHARS, alignment_key
from stream.worker import alignment_topic
from stream.worker.alignment_topic import MAX_KEY_BYTES, Published


def write(published: Published, *keys: bytes, partition: int = 0) -> None:
    for offset, key in enumerate(keys):
        published._fold(SimpleNamespace(partition=partition, offset=offset, key=key, value=b"x"))


def withdrawn(published: Published) -> list[bytes | None]:
    return [output.key for output in published.differences([]) if output.value is None]


def test_keys_of_no_pair_are_not_held_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are withdrawn as all others are; a topic full of them would take the memory."""
    monkeypatch.setattr(alignment_topic, "MAX_FORGED_BYTES", 5 * MAX_KEY_BYTES)
    published = Published(Settings(), 1)
    longest = alignment_key(f"{'s' * 64}:{'|' * MAX_ID_CHARS}", f"{'t' * 64}:{chr(0x1F600) * MAX_ID_CHARS}")
    assert len(longest.encode()) <= MAX_KEY_BYTES
    short = [longest.encode(), *(b"a:%d|b:1" % number for number in range(50))]
    write(published, *(b"%d" % number + b"k" * MAX_KEY_BYTES for number in range(10)), *short)
    found = withdrawn(published)
    assert found[-51:] == short and len(found) == 4 + 51


def test_strays_end_no_worker_that_knows_its_partitions() -> None:
    """Whoever may write to the topic may write as many of them as partitions that are added leave."""
    for may_have_grown in (True, False):
        published = Published(Settings(), 2, may_have_grown=may_have_grown)
        keys = [b"a:%d|b:1" % number for number in range(50)]
        for partition in (0, 1):
            write(published, *keys, partition=partition)
        assert {stray.key for stray in published.strays} == {*keys}
    with pytest.raises(StateError, match="50 pairs in a partition"):
        published._check_growth()
