"""An entity is erased where that can be done, and what is left is said."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.catalogues import catalogues
from stream.broker.producing import Record
from stream.broker.producing import produce as send
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.config import ModelSettings, Settings, StateSettings
from stream.consuming.erasing import forget_former_values
from stream.engine.aligner import Aligner
from stream.events import Delete, EntityEvent, Link, Upsert, alignment_key, event_key
from stream.learning.alignment import drained
from stream.mapping.canonical import as_messages, decode_canonical
from stream.state.generations import Generations
from tests.stream.workers import command, produce

ADA = Upsert("a", "ada", "person", {"name": "Ada Lovelace"})
WORK = Upsert("a", "notes", "work", {"title": "Notes"}, {"by": ["ada"]})
OTHER = Upsert("a", "adage", "work", {"title": "not ada's"}, {"by": ["adam"]})


def erase(settings: Settings, *arguments: str) -> dict[str, Any]:
    result = command(settings, "erase", *arguments, "--json")
    assert result.exit_code == 0
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def last(settings: Settings, topic: str) -> dict[bytes, bytes | None]:
    return {record.key: record.value for record in read_topic(settings, topic)}


def test_an_entity_and_the_verdicts_on_it_are_erased_and_the_rest_is_listed(
    settings: Settings, tmp_path: Path
) -> None:
    ensure_topics(settings)
    topics = settings.topics
    links = [Link("a:ada", "b:1", "same", "ann"), Link("a:adage", "b:2", "same", "ann")]
    verdicts = {alignment_key(each.left, each.right).encode(): msgspec.json.encode(each) for each in links}
    keys = [*verdicts]
    entities = [ADA, WORK, OTHER]
    produce(settings, topics.entities, [(event_key(each), msgspec.json.encode(each)) for each in entities])
    produce(settings, topics.links, verdicts.items())
    record = b'{"subject_id":"a:ada","object_id":"b:1"}'
    produce(settings, topics.alignments, [(keys[0], record)])
    produce(settings, topics.alignment_events, [(keys[0], record), (keys[1], b"{}"), (keys[0], record)])
    produce(settings, topics.dead_letters, [(None, b'{"id":"ada","name":'), (b"a:adam", b"{")])

    plan = erase(settings, "a:ada")
    assert plan["tombstones"] == [topics.entities, topics.links] and not plan["executed"]
    assert (plan["aligned"], plan["pointing"]) == (["b:1"], ["a:notes"])
    assert plan["mentions"] == {topics.alignment_events: 2, topics.dead_letters: 1}
    assert None not in {**last(settings, topics.entities), **last(settings, topics.links)}.values()

    done = erase(settings, "a:ada", "--execute")
    assert done["executed"] and any("a:notes" in line for line in done["left"])
    assert [key for key, value in last(settings, topics.entities).items() if value is None] == [b"a:ada"]
    assert [key for key, value in last(settings, topics.links).items() if value is None] == [keys[0]]
    file = tmp_path / "sameas.toml"
    file.write_text('[sources.a]\nfile = "people.csv"\nid = "nr"\n')
    again = erase(settings, "a:ada", "--execute", "--config", str(file))
    assert again["tombstones"] == []
    assert any("people.csv" in line and "brings it back" in line for line in again["left"])


def test_what_stands_in_two_partitions_ends_in_both_and_no_key_ends_the_command(
    embedded_settings: Settings,
) -> None:
    """Partitions were added, and a tombstone where the key belongs now leaves the former value for good."""
    topics = msgspec.structs.replace(embedded_settings.topics, partitions=2)
    settings = msgspec.structs.replace(embedded_settings, topics=topics)
    ensure_topics(settings)
    ada, work = msgspec.json.encode(ADA), msgspec.json.encode(WORK)
    records = [Record(topics.entities, b"a:ada", ada, number) for number in (0, 1)]
    send(settings, [*records, Record(topics.entities, b"\xff", work, 0)])
    found = erase(settings, "a:ada", "--execute")
    assert found["tombstones"] == [topics.entities] * 2 and found["pointing"] == ["a:notes"]
    ends = {record.partition: record.value for record in read_topic(settings, topics.entities)}
    assert ends == {0: None, 1: None}
    assert erase(settings, "a:ada")["tombstones"] == []


def apply(aligner: Aligner, events: Sequence[EntityEvent], first: int) -> None:
    messages = [
        msgspec.structs.replace(each, cause=msgspec.structs.replace(each.cause, offset=first + number))
        for number, each in enumerate(as_messages(events))
    ]
    for batch in drained(aligner, messages):
        aligner.published(batch.sequence)


def test_the_files_of_a_state_forget_what_was_deleted(tmp_path: Path, checkpoint: Path) -> None:
    state = tmp_path / "state"
    settings = Settings(state=StateSettings(dir=state), model=ModelSettings(dir=checkpoint))
    secret = Upsert("left", "s", "film", {"title": "Xq7Zk9Wv3Lm2"})

    def is_in_the_files() -> bool:
        return any(b"Xq7Zk9Wv3Lm2" in path.read_bytes() for path in state.rglob("*") if path.is_file())

    generations = Generations(settings, decode_canonical)
    aligner = generations.open()
    apply(aligner, [*catalogues(), secret], 0)
    assert "a worker has it" in (forget_former_values(state, "left:s") or "")
    aligner.copy_to(generations.partial())
    generations.begin(generations.current, state / "generation-2.partial")  # that of a promotion
    aligner.copy_to(state / "generation-3.partial")  # which was killed before it had begun
    aligner.close()
    (state / "generation-1" / "snapshot.partial").mkdir()
    generations.close()
    assert "no worker has read yet" in (forget_former_values(state, "left:s") or "")
    aligner = generations.open()
    apply(aligner, [Delete("left", "s")], 1000)
    aligner.close()
    generations.close()
    assert is_in_the_files()
    assert len([*state.glob("generation-*")]) == 3
    assert forget_former_values(state, "left:s") is None and not is_in_the_files()
    assert forget_former_values(tmp_path / "none", "left:s") is None
    assert not [*state.glob("generation-[23]*"), *state.glob("*/snapshot*")]
    aligner = generations.open()  # as usable as before
    assert aligner.exist(["left:s", "left:f1"]) == [False, True]
    aligner.close()
    generations.close()
