"""Giving a verdict and taking it back, as people do."""

import pytest
from click.testing import CliRunner

from stream.cli import main
from stream.config import Settings
from stream.events import Link, decode_link
from stream.subscribe import read_topic


def test_a_verdict_and_its_end_have_one_key(settings: Settings) -> None:
    options = [
        *("--bootstrap", settings.kafka.bootstrap_servers),
        *("--set", f"topics.links={settings.topics.links}"),
    ]

    def link(*arguments: str) -> None:
        result = CliRunner().invoke(main, ["link", *arguments, *options])
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
