"""What is left of a compacted topic does not depend on when the broker compacts it."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from stream.broker.folding import Partitions, fold


def test_folding_keeps_the_newest_value_by_key_and_the_newest_last() -> None:
    newest: dict[bytes, int] = {}
    for key, value in ((b"a", 1), (b"b", 2), (b"c", 3), (b"a", 4), (b"c", None), (None, 5), (b"gone", None)):
        fold(newest, key, value)
    assert [*newest.items()] == [(b"b", 2), (b"a", 4), (b"", 5)]


@given(st.permutations([0, 0, 1, 1, 1]))
def test_the_order_in_which_partitions_are_read_does_not_matter(order: list[int]) -> None:
    """A stray record of `b` and its tombstone stand in partition 1, its own record in partition 0."""
    logs = [iter([(b"a", 1), (b"b", 2)]), iter([(b"b", 9), (b"b", None), (b"c", 3)])]
    topic = Partitions[int]()
    for number in order:
        key, value = next(logs[number])
        topic.fold(SimpleNamespace(partition=number, key=key), value)
    assert topic.newest() == {b"a": 1, b"b": 2, b"c": 3}
