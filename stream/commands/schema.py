"""`sameas schema`: JSON Schemas of the records, made from the definitions that decode and encode them.

They are version 1. Within it fields may be added; none is removed or becomes required, and none changes
what it may hold. `tests/stream/commands/test_schema.py` compares them with the first release.
"""

import json
from typing import Any

import click
import msgspec

from stream.console import put
from stream.events import AlignmentEvent, AlignmentRecord, EntityEvent, Link

SCHEMAS: dict[str, Any] = {
    "entity-event": EntityEvent,
    "link": Link,
    "alignment-record": AlignmentRecord,
    "alignment-event": AlignmentEvent,
}


@click.command()
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print the JSON Schema of one record, or of all."""
    if name is not None and name not in SCHEMAS:
        raise click.BadParameter(f"one of {', '.join(SCHEMAS)}", param_hint="NAME")
    found = {key: json_schema(key) for key in SCHEMAS} if name is None else json_schema(name)
    for line in json.dumps(found, indent=2).splitlines():
        put(line)


def json_schema(name: str) -> dict[str, Any]:
    """The schema of one of `SCHEMAS`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sameas:schema:v1:{name}",
        **msgspec.json.schema(SCHEMAS[name]),
    }
