"""Giving a verdict and taking it back, as people do."""

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from stream.broker.reading import read_topic
from stream.cli import main
from stream.config import Settings
from stream.events import Link, alignment_key, decode_link, escape_bar, unescape_bar
from tests.stream.workers import command


def test_a_verdict_and_its_end_have_one_key(settings: Settings) -> None:
    def link(*arguments: str) -> None:
        result = command(settings, "link", *arguments)
        assert result.exit_code == 0, result.output

    link("imdb:1", "dbpedia:a|b", "--author", "ann")
    link("dbpedia:a|b", "imdb:1", "--different", "--author", "bob")
    link("imdb:1", "dbpedia:a|b", "--retract")
    records = list(read_topic(settings, settings.topics.links))
    assert {record.key for record in records} == {b"dbpedia:a%7Cb|imdb:1"}
    pair = ("dbpedia:a|b", "imdb:1")
    assert [decode_link(record.key, record.value) for record in records] == [
        (*pair, Link(*pair, "same", "ann")),
        (*pair, Link(*pair, "different", "bob")),
        (*pair, None),
    ]


NAMES = st.lists(st.sampled_from(["|", "%", "7C", "25", "257C", "%7C", "x"])).map("".join)


@given(NAMES, NAMES)
def test_two_pairs_never_share_a_key(left: str, right: str) -> None:
    key = alignment_key(f"a:{left}x", f"b:{right}x")
    assert decode_link(key.encode(), None) == (f"a:{left}x", f"b:{right}x", None)
    assert unescape_bar(escape_bar(left)) == left and "|" not in escape_bar(left)


def test_keys_of_ids_with_bars() -> None:
    assert [*map(escape_bar, ["a|b", "a%7Cb", "a%257Cb", "a%20%7c"])] == [
        "a%7Cb",
        "a%257Cb",
        "a%25257Cb",
        "a%20%7c",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tt1", "b:1"], "'tt1' is not of the form source:id"),
        (["a:1", "a:2"], "are of one source"),
        (["a:1", "b:2", "--different", "--retract"], "given or taken back"),
        (["a:1", "b:\udcff"], r"'b:\udcff' is not UTF-8"),
        (["a:1", "b:2", "--author", "\udcff"], r"'\udcff' is not UTF-8"),
    ],
)
def test_what_is_no_verdict(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["link", *arguments, "--bootstrap", "127.0.0.1:1"])
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1
