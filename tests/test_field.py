"""What people really feed, as public bug reports show it: the folders of ../shared/field.

The parts have tests of their own for the whole kind; here are the inputs themselves.
"""

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest

from index.entity import node_of
from index.graph import GraphStore
from index.store import Store
from stream.catalogue.account import Account
from stream.catalogue.proposing import propose
from stream.catalogue.reading import read_files
from stream.config import load_settings
from stream.engine.inbox import Inbox
from stream.engine.links import LinkStore
from stream.errors import ConfigError
from stream.events import Cause, Message, Upsert
from stream.mapping.decoder import make_decoder
from tests.conftest import ROOT

FIELD = ROOT.parent / "shared" / "field"
pytestmark = pytest.mark.skipif(not FIELD.exists(), reason="the field log is not here")


def fed(
    folder: str, source: str, monkeypatch: pytest.MonkeyPatch, settings: str = "sameas.toml"
) -> tuple[dict[str, Upsert], Account]:
    """What a feed leaves of each entity, and its account."""
    monkeypatch.chdir(FIELD / folder)
    account = Account()
    events = account.accepted(read_files(load_settings(Path(settings), {}), [], source, account))
    return {event.id: event for event in events if isinstance(event, Upsert)}, account


@pytest.mark.parametrize(
    ("folder", "source", "entities", "problems"),
    [
        ("01-tsv-quotes", "basics", 8, {"missing_targets": 4}),
        ("01-tsv-quotes", "last", 5, {}),
        ("01-tsv-quotes", "csv", 4, {"refused": 1}),
        ("03-duplicate-header", "j", 0, {"refused": 1}),
        ("04-duplicate-ids", "left", 5, {"ids_twice": 2}),
        ("06-rdf-blank-nodes", "s", 4, {}),
        ("07-float-ids", "s", 6, {}),
        ("07-float-ids", "j", 6, {}),
        ("08-path-into-text", "csv", 0, {"refused": 2}),
        ("08-path-into-text", "rows", 2, {"refused": 2, "missing_targets": 1, "unread_cells": 2}),
        ("26-parquet-nan", "nan", 2, {"refused": 1}),  # an infinite number is no missing one
        ("26-parquet-nan", "ref", 3, {}),
        ("28-jsonl-bom", "s", 2, {}),
        ("28-jsonl-bom", "nt", 2, {}),
        ("28-jsonl-bom", "ttl", 1, {}),
    ],
)
def test_every_row_is_an_entity_or_counted(
    folder: str, source: str, entities: int, problems: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, account = fed(folder, source, monkeypatch)
    assert (account.entities, account.report().problems) == (len(found), problems) == (entities, problems)


def test_quotes_that_are_text_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = fed("01-tsv-quotes", "basics", monkeypatch)
    assert found["tt01"].attributes["primaryTitle"] == '"Winter" in Halden'
    assert found["tt02"].attributes == {"primaryTitle": '"The Empty Harbour', "startYear": 1951}


@pytest.mark.parametrize("source", ["s", "p"])
def test_two_columns_of_one_name(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="2 columns are called 'name'"):
        fed("03-duplicate-header", source, monkeypatch)


def test_the_order_of_rows_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (
        fed("04-duplicate-ids", "left", monkeypatch, name)[0] for name in ("sameas.toml", "reversed.toml")
    )
    assert one == other


def test_blank_nodes_have_lasting_ids_and_none_is_another_files(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "06-rdf-blank-nodes"
    assert fed(folder, "s", monkeypatch)[0] == fed(folder, "s", monkeypatch)[0]
    two, _ = fed(folder, "s", monkeypatch, "two.toml")
    first, second = (two[name].relations["address"] for name in ("m1", "m2"))
    assert len(two) == 4 and first != second


@pytest.mark.parametrize("source", ["s", "j"])
def test_12_0_is_the_id_12(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = fed("07-float-ids", source, monkeypatch)
    assert found["film/1"].relations == {"directed_by": ["person/12"]}


def test_no_entity_is_made_of_null(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("left", "right"):
        found, _ = fed("02-null-spellings", source, monkeypatch)
        assert found and not any("null" in name.casefold() for name in found)
    found, account = fed("02-null-spellings", "n", monkeypatch, "nulls.toml")
    assert {name for name in found if not name.isdecimal()} == {"country/NO"}
    assert sum(cells.count for cells in account.report().unclear_cells) >= 4  # None, -, ? and unknown


@pytest.mark.parametrize("name", ["plain", "sep-line", "decimal-comma", "pipes", "commas-in"])
def test_another_separator_is_proposed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIELD / "25-semicolon")
    path = Path(f"{name}.tsv" if name == "commas-in" else f"{name}.csv")
    assert "separator = " in propose([path], "s").toml


@pytest.mark.parametrize(
    ("folder", "applied", "stale", "reasons"),
    [
        ("10-toast-arrays", 12, 0, {"unavailable-value": 3}),
        ("11-truncate", 8, 0, {"unsupported-op": 1}),
        ("12-maxwell-delete", 4, 0, {"other-envelope": 6}),
        ("13-shards-one-topic", 7, 0, {"id-clash": 1}),
        ("14-keys-that-name-nothing", 18, 0, {}),
        ("18-numeric-without-scale", 4, 0, {}),
        ("20-wrong-canonical-keys", 0, 0, {"bad-key": 7, "bad-id": 1, "malformed": 1}),
        ("21-version-is-a-time", 6, 5, {}),
    ],
)
def test_every_message_is_applied_or_refused_with_its_reason(
    folder: str,
    applied: int,
    stale: int,
    reasons: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(FIELD / folder / "sameas.toml", {})
    decode = make_decoder(settings.sources, settings.topics.entities, settings.topics.links)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(FIELD / folder / "make.py"))
    messages = []
    for offset, line in enumerate(Path("messages.jsonl").read_text().splitlines()):
        said = json.loads(line)
        key, value = (
            text if text is None or isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            for text in (said.get("key"), said["value"])
        )
        messages.append(
            Message(
                Cause(said["topic"], 0, offset),
                None if key is None else key.encode(),
                None if value is None else value.encode(),
                float(offset),
            )
        )
    with Store(tmp_path / "state") as store:
        graph = GraphStore(store)
        received = Inbox(store, graph, LinkStore(store), decode).receive(messages)
        found = Counter(dict(letter.headers)["reason"].decode() for letter in received.dead_letters)
        counts = received.topics.values()
        assert found == reasons
        assert (sum(c.applied for c in counts), sum(c.stale for c in counts)) == (applied, stale)
        if folder.startswith("14"):
            rows = [node_of(f"shop:{number}") for number in range(1, 7)]
            assert not any(graph.exist(rows))
