"""The schemas: what is committed is what is printed, what is written fits, and version 1 stays version 1."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.catalogues import catalogues
from stream.cli import main
from stream.commands.schema import SCHEMAS, json_schema
from stream.engine.aligner import Aligner
from stream.events import Link
from stream.mapping.canonical import as_messages, decode_canonical

DOCS = Path(__file__).parents[3] / "docs" / "schemas"
FIRST = Path(__file__).parent / "v1"  # as first released; never to be edited

Schema = dict[str, Any]


def read(directory: Path, name: str) -> Schema:
    found: Schema = json.loads((directory / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_committed_schemas_are_those_that_are_printed(name: str) -> None:
    printed = CliRunner().invoke(main, ["schema", name]).output
    assert (DOCS / f"{name}.json").read_text() == printed, f"sameas schema {name} > docs/schemas/{name}.json"
    assert json.loads(printed) == json_schema(name)
    jsonschema.Draft202012Validator.check_schema(json_schema(name))


def test_there_is_a_schema_of_each_record() -> None:
    for directory in (DOCS, FIRST):
        assert {path.stem for path in directory.iterdir()} == set(SCHEMAS)
    assert set(json.loads(CliRunner().invoke(main, ["schema"]).output)) == set(SCHEMAS)


def test_real_records_fit(checkpoint: Path, tmp_path: Path) -> None:
    events = catalogues()
    aligner = Aligner(tmp_path / "state", checkpoint, decode_canonical)
    outputs = list(aligner.process([*as_messages(events)]).outputs)
    while aligner.backlog:
        outputs += aligner.process([]).outputs
    aligner.close()
    written: dict[str, list[bytes]] = {
        "entity-event": [msgspec.json.encode(event) for event in events],
        "link": [msgspec.json.encode(Link("a:1", "b:2"))],
        "alignment-record": [o.value for o in outputs if o.kind == "alignments" and o.value],
        "alignment-event": [o.value for o in outputs if o.kind == "alignment_events" and o.value],
    }
    for name, values in written.items():
        assert values, name
        validator = jsonschema.Draft202012Validator(json_schema(name))
        for value in values:
            validator.validate(json.loads(value))


def differences(old: Any, new: Any, at: str = "", *, may_widen: bool = False) -> Iterator[str]:
    """What readers and writers of the old schema could not stand.

    Args:
        may_widen: it is of what sameas reads, so that further types of a value do no harm.
    """
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{at}: {old} became {new}"
        return
    for key, value in old.items():
        if key in ("description", "title"):
            continue
        if key not in new:
            yield f"{at}/{key}: is gone"
        elif key == "required":
            if set(value) != set(new[key]):
                yield f"{at}: required {sorted(value)} became {sorted(new[key])}"
        elif key != "anyOf" or not may_widen or any(kind not in new[key] for kind in value):
            yield from differences(value, new[key], f"{at}/{key}", may_widen=may_widen)
    if "properties" in old and "required" in new and "required" not in old:
        yield f"{at}: nothing was required"


@pytest.mark.parametrize("name", SCHEMAS)
def test_version_1_stays_version_1(name: str) -> None:
    is_input = name in ("entity-event", "link")
    assert list(differences(read(FIRST, name), json_schema(name), may_widen=is_input)) == []


def _drop(found: Schema) -> None:
    del found["$defs"]["AlignmentRecord"]["properties"]["confidence"]


def _require(found: Schema) -> None:
    found["$defs"]["AlignmentRecord"]["required"].append("object_category")


def _narrow(found: Schema) -> None:
    found["$defs"]["AlignmentRecord"]["properties"]["confidence"]["type"] = "integer"


def _add(found: Schema) -> None:
    found["$defs"]["AlignmentRecord"]["properties"]["comment"] = {"type": "string", "default": ""}


@pytest.mark.parametrize(("change", "breaks"), [(_drop, 1), (_require, 1), (_narrow, 1), (_add, 0)])
def test_what_breaks_version_1(change: Callable[[Schema], None], breaks: int) -> None:
    new = copy.deepcopy(json_schema("alignment-record"))
    change(new)
    assert len(list(differences(read(FIRST, "alignment-record"), new))) == breaks
