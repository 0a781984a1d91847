"""What docs/mapping.md says of TRUNCATE, with Debezium as it is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from stream.broker.reading import read_topic
from stream.errors import InvalidInput
from stream.events import Cause, Message
from stream.mapping.decoder import make_decoder
from stream.mapping.language import SourceMapping
from tests.stream.worker.shop import debezium, postgres
from tests.stream.workers import own_settings, until


@pytest.mark.slow
def test_truncate_is_refused_by_a_compacted_topic_and_becomes_a_dead_letter_from_another(
    apache_kafka: dict[str, Any], tmp_path: Path
) -> None:
    settings = own_settings(apache_kafka["plaintext"], tmp_path)
    with postgres() as shop:
        person, film = (f"{shop.prefix}.{table}" for table in ("person", "film"))
        shop.sql("insert into person values ('p1', 'Anna'); insert into film values ('f1', 'Alien');")
        shop.sql("insert into film_actor values ('f1', 'p1');")
        more = {"skipped.operations": "none"}
        with debezium(apache_kafka, shop, tmp_path / "debezium", schemas=False, more=more) as log:
            shop.sql("truncate person;")
            until(lambda: len([*read_topic(settings, person)]) > 1, "message of the TRUNCATE")
            record = [*read_topic(settings, person)][-1]
            assert record.key is None and msgspec.json.decode(record.value)["op"] == "t"
            decode = make_decoder({"shop": SourceMapping(topic=person, id="id", type="person")}, "e", "l")
            with pytest.raises(InvalidInput) as refused:
                decode(Message(Cause(person, 0, record.offset), record.key, record.value, 0.0))
            assert refused.value.reason == "unsupported-op"
            admin = KafkaAdminClient(bootstrap_servers=apache_kafka["plaintext"])
            admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, film, {"cleanup.policy": "compact"})]
            )
            admin.close()
            shop.sql("truncate film;")
            refusal = "Compacted topic cannot accept message without key"
            until(lambda: refusal in log.read_text(errors="replace"), f"{refusal!r} in {log}")
