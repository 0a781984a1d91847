"""JSON Schemas of the records, generated from the definitions that decode and encode them.

They are version 1. Within it fields may be added, none is taken away or becomes required, and none changes
what it may hold; `tests/stream/commands/test_schemas.py` compares with what was first released.
"""

from typing import Any

import msgspec

from stream.events import AlignmentEvent, AlignmentRecord, EntityEvent, Link

RECORDS: dict[str, Any] = {
    "entity-event": EntityEvent,
    "link": Link,
    "alignment-record": AlignmentRecord,
    "alignment-event": AlignmentEvent,
}


def schema(name: str) -> dict[str, Any]:
    """The schema of one of `RECORDS`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sameas:schema:v1:{name}",
        **msgspec.json.schema(RECORDS[name]),
    }
