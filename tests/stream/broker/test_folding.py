"""What is left of a compacted topic does not depend on when the broker compacts it."""

from stream.broker.folding import fold


def test_folding_keeps_the_newest_value_by_key_and_the_newest_last() -> None:
    newest: dict[bytes, int] = {}
    for key, value in ((b"a", 1), (b"b", 2), (b"c", 3), (b"a", 4), (b"c", None), (None, 5), (b"gone", None)):
        fold(newest, key, value)
    assert [*newest.items()] == [(b"b", 2), (b"a", 4), (b"", 5)]
