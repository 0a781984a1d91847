"""The current alignments in formats that other tools read: SSSOM as TSV, and `owl:sameAs` as N-Triples.

Both name an entity by the same IRI: its source's `iri` or URN, and its id. An id that is an IRI stands for
itself. Characters that an IRI may not hold are percent-encoded, in a URN also letters beyond ASCII.
In the other cells of SSSOM a run of blanks (tabs and line breaks, too) becomes one blank, a double quote a
single one, and what a spreadsheet would take for a formula gets an apostrophe in front, as OWASP has it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from uuid import NAMESPACE_URL, uuid5

from stream.config import Settings
from stream.events import AlignmentRecord, split_curie
from stream.mapping.language import SourceMapping, is_absolute

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
NOT_IN_IRI = re.compile(  # RFC 3987: controls, delimiters, private and unassigned characters, bidi marks
    r'[\x00-\x20<>"{}|\\^`\[\]\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ue000-\uf8ff\ufdd0-\ufdef\ufeff\ufff0-\uffff]'
    r"|(?![\U000e1000-\U000efffd])[\U000e0000-\U0010ffff]"
    rf"|[{''.join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 14))}]"
    r"|%(?![0-9A-Fa-f]{2})"
)
NOT_IN_URN = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/-]")
RESERVED = {"owl", "rdf", "rdfs", "sameas", "semapv", "skos", "sssom", "xsd", "linkml", "oboInOwl"}
RESERVED |= {"urn", "http", "https"}

FORMULA = re.compile("[=+\\-@＝＋－＠]")  # at the beginning of a cell

Format = Callable[[Settings, Iterable[AlignmentRecord]], Iterator[Sequence[str]]]


def source_iri(sources: Mapping[str, SourceMapping], source: str) -> str:
    """The IRI that a source's ids are appended to: the mapping's `iri`, or a URN."""
    mapping = sources.get(source)
    return (mapping.iri if mapping is not None else None) or f"urn:sameas:{source}:"


def sssom(settings: Settings, records: Iterable[AlignmentRecord]) -> Iterator[Sequence[str]]:
    """The lines of an SSSOM mapping set: metadata as YAML comments, names of slots, cells of each pair."""
    records = sorted(records, key=lambda record: (record.subject_id, record.object_id))
    sources = sorted({split_curie(name)[0] for r in records for name in (r.subject_id, r.object_id)})
    prefixes = {"sameas": RECORD_IRI, "urn": "urn:"}  # the latter for ids that are such IRIs
    prefixes |= {_prefix(source): source_iri(settings.sources, source) for source in sources}
    name = uuid5(NAMESPACE_URL, settings.topics.alignments)
    yield [f"#sssom_version: {json.dumps(SSSOM_VERSION)}"]
    yield [f"#mapping_set_id: {json.dumps(MAPPING_SETS + str(name))}"]
    yield [f"#license: {json.dumps(UNSPECIFIED_LICENSE)}"]
    yield ["#curie_map:"]
    for prefix, iri in prefixes.items():
        yield [f"#  {json.dumps(prefix)}: {json.dumps(iri)}"]
    yield SLOTS
    for record in records:
        cells = {slot: _cell(str(getattr(record, slot))) for slot in SLOTS}
        for slot in ("subject_id", "object_id"):
            cells[slot] = _curie(settings.sources, *split_curie(getattr(record, slot)))
        yield [*cells.values()]


def _cell(text: str) -> str:
    text = re.sub(r"\s+", " ", text).replace('"', "'")
    return f"'{text}" if FORMULA.match(text.lstrip()) else text


def n_triples(settings: Settings, records: Iterable[AlignmentRecord]) -> Iterator[Sequence[str]]:
    """A triple for each pair: subject `owl:sameAs` object."""
    for record in records:
        ends = [_iri(settings.sources, *split_curie(name)) for name in (record.subject_id, record.object_id)]
        yield [f"<{ends[0]}> <{SAME_AS}> <{ends[1]}> ."]


def _iri(sources: Mapping[str, SourceMapping], source: str, local_id: str) -> str:
    return "".join(_parts(sources, source, local_id))


def _curie(sources: Mapping[str, SourceMapping], source: str, local_id: str) -> str:
    """The CURIE, or the IRI itself where a CURIE would be read as one."""
    start, end = _parts(sources, source, local_id)
    return f"{_prefix(source)}:{end}" if start and not end.startswith("//") else start + end


def _parts(sources: Mapping[str, SourceMapping], source: str, local_id: str) -> tuple[str, str]:
    """What the IRIs of the source begin with, and the end for this id; nothing and the IRI if the id is one.

    With an `iri`, ids that are percent-encoded already stay as they are. In a URN any two ids stay apart.
    """
    mapping = sources.get(source)
    start = "" if is_absolute(local_id) else source_iri(sources, source)
    in_urn = start and (mapping is None or not mapping.iri)
    end = (NOT_IN_URN if in_urn else NOT_IN_IRI).sub(_percent, local_id)
    first = -1 if "#" in start else end.find("#")  # an IRI has one at most
    return start, end[: first + 1] + end[first + 1 :].replace("#", "%23")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _prefix(source: str) -> str:
    """The source as a CURIE's prefix, which is not one that SSSOM defines; different for any two sources."""
    return source if re.match("[A-Za-z]", source) and source not in RESERVED else f"_{source}"


FORMATS: dict[str, Format] = {"sssom": sssom, "rdf": n_triples}
