"""The current alignments in formats that other tools read: SSSOM as TSV, and `owl:sameAs` as N-Triples.

The local part of a CURIE is the end of the IRI, so that prefix and local part give the IRI. Characters that
an IRI may not hold are percent-encoded.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from uuid import NAMESPACE_URL, uuid5

from stream.config import Settings
from stream.events import AlignmentRecord, split_curie
from stream.mapping.language import SourceMapping

SSSOM_VERSION = "1.1"
UNSPECIFIED_LICENSE = "https://w3id.org/sssom/license/unspecified"
MAPPING_SETS = (
    "https://w3id.org/sssom/mappings/"  # a mapping set has to have an IRI, and `urn:` is not understood
)
SAME_AS = "http://www.w3.org/2002/07/owl#sameAs"
RECORD_IRI = "urn:sameas:record:"
SLOTS = (  # in the order of SSSOM's canonical form
    "record_id",
    "subject_id",
    "subject_category",
    "predicate_id",
    "object_id",
    "object_category",
    "mapping_justification",
    "mapping_date",
    "confidence",
    "mapping_tool",
    "mapping_tool_version",
)
NOT_IN_IRI = re.compile(r'[\x00-\x20<>"{}|\\^`\[\]\x7f-\xa0]|%(?![0-9A-Fa-f]{2})')
NOT_IN_URN = re.compile(r'[\x00-\x20<>"{}|\\^`\[\]\x7f-\xa0%#?]')
NOT_ASCII = re.compile(r"[^\x00-\x7f]")  # allowed in IRIs, not in CURIEs
RESERVED = {"owl", "rdf", "rdfs", "sameas", "semapv", "skos", "sssom", "xsd", "linkml", "oboInOwl"}

Format = Callable[[Settings, Iterable[AlignmentRecord]], Iterator[str]]


def source_iri(sources: Mapping[str, SourceMapping], source: str) -> str:
    """The IRI that a source's ids are appended to: the mapping's `iri`, or a URN."""
    mapping = sources.get(source)
    return (mapping.iri if mapping is not None else None) or f"urn:sameas:{source}:"


def sssom(settings: Settings, records: Iterable[AlignmentRecord]) -> Iterator[str]:
    """The lines of an SSSOM mapping set: metadata as YAML comments, names of slots, a line for each pair."""
    records = sorted(records, key=lambda record: (record.subject_id, record.object_id))
    sources = sorted({split_curie(name)[0] for r in records for name in (r.subject_id, r.object_id)})
    prefixes = {"sameas": RECORD_IRI}
    prefixes |= {_prefix(source): source_iri(settings.sources, source) for source in sources}
    name = uuid5(NAMESPACE_URL, settings.topics.alignments)
    yield f"#sssom_version: {json.dumps(SSSOM_VERSION)}"
    yield f"#mapping_set_id: {json.dumps(MAPPING_SETS + str(name))}"
    yield f"#license: {json.dumps(UNSPECIFIED_LICENSE)}"
    yield "#curie_map:"
    for prefix, iri in prefixes.items():
        yield f"#  {json.dumps(prefix)}: {json.dumps(iri)}"
    yield "\t".join(SLOTS)
    for record in records:
        cells = {slot: str(getattr(record, slot)) for slot in SLOTS}
        for slot in ("subject_id", "object_id"):
            source, local_id = split_curie(cells[slot])
            local = NOT_ASCII.sub(_percent, _encoded(settings.sources, source, local_id))
            cells[slot] = f"{_prefix(source)}:{local}"
        for slot in ("subject_category", "object_category"):
            cells[slot] = re.sub(r"\s+", " ", cells[slot]).replace('"', "'")
        yield "\t".join(cells.values())


def n_triples(settings: Settings, records: Iterable[AlignmentRecord]) -> Iterator[str]:
    """A triple for each pair: subject `owl:sameAs` object."""
    for record in records:
        ends = []
        for name in (record.subject_id, record.object_id):
            source, local_id = split_curie(name)
            ends.append(source_iri(settings.sources, source) + _encoded(settings.sources, source, local_id))
        yield f"<{ends[0]}> <{SAME_AS}> <{ends[1]}> ."


def _encoded(sources: Mapping[str, SourceMapping], source: str, local_id: str) -> str:
    """The id as the end of an IRI.

    With an `iri`, ids that are percent-encoded already stay as they are. In a URN any two ids stay apart.
    """
    mapping = sources.get(source)
    wrong = NOT_IN_IRI if mapping is not None and mapping.iri else NOT_IN_URN
    return wrong.sub(_percent, local_id)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _prefix(source: str) -> str:
    """The source as a CURIE's prefix, which begins with a letter and is not one that SSSOM defines."""
    return source if re.match("[A-Za-z_]", source) and source not in RESERVED else f"_{source}"


FORMATS: dict[str, Format] = {"sssom": sssom, "rdf": n_triples}
