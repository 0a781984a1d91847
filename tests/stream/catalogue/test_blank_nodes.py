"""Blank nodes: the same ids for the same file, whatever its labels; and files do not share one."""

import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.catalogue.rdf import read_rdf
from stream.catalogue.reading import read_events
from stream.errors import InvalidInput
from stream.events import Upsert
from stream.mapping.language import SourceMapping
from stream.mapping.row import Row

MUSEUMS = """@prefix : <http://x/> .
:m1 :name "Harbour Museum" ; :address [ :street "Quay 4" ; :city "Halden" ] .
:m2 :name "Glass House" ; :address [ :street "Glass Rd 1" ; :city "Moss" ] ; :staff ( [] [ :name "Bo" ] ) .
[] :name "Lost" ; :address [ :street "Quay 4" ; :city "Halden" ] .
"""


def read(*texts: str, suffix: str = ".nt") -> list[Row]:
    """The rows of files with these texts, by their ids."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{number}{suffix}" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        found = [row for _, rows in read_rdf(paths, "http://x/") for _, row in rows]
    rows = [row for row in found if not isinstance(row, InvalidInput)]
    assert len(rows) == len(found)
    return sorted(rows, key=lambda row: str(row["@id"]))


def ids(rows: Iterable[Row], **said: str) -> list[str]:
    """Of the rows that say so."""
    return [str(row["@id"]) for row in rows if all([value] == row.get(name) for name, value in said.items())]


def test_an_unchanged_file_gives_the_same_ids_each_time() -> None:
    once = read(MUSEUMS, suffix=".ttl")
    assert once == read(MUSEUMS, suffix=".ttl")
    assert len(ids(once)) == len(set(ids(once))) == 2 + 2 + 3 + 2
    assert len(ids(once, street="Quay 4")) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@prefix : <http://x/> .", '@prefix : <http://x/> . :a :address [ :street "Quay 4" ] . [] :b [] .'),
        ('"Glass House"', '"Glass House", "Glashuset"'),
        ('"Quay 4" ; :city "Halden" ] .\n:m2', '"Quay 5" ; :city "Halden" ] .\n:m2'),
        ('[] :name "Lost"', '[] :name "Found" . [] :name "Lost"'),
    ],
)
def test_a_change_elsewhere_or_of_what_a_node_says_in_its_place_leaves_ids_as_they_are(
    old: str, new: str
) -> None:
    before = read(MUSEUMS, suffix=".ttl")
    after = read(MUSEUMS.replace(old, new), suffix=".ttl")
    assert old in MUSEUMS and set(ids(before)) <= set(ids(after))


def test_one_of_several_nodes_in_a_place_goes_by_what_it_says() -> None:
    lines = [f'<http://x/m> <http://x/p> _:{n} .\n_:{n} <http://x/name> "{n}" .\n' for n in "abc"]
    before, after = read("".join(lines)), read("".join([lines[2], lines[0]]))
    assert ids(after, name="c") == ids(before, name="c") != ids(before, name="a")


def test_a_label_is_good_within_one_file() -> None:
    texts = [f'_:b0 <http://x/name> "{n}" .\n<http://x/m{n}> <http://x/address> _:b0 .\n' for n in (1, 2)]
    rows = read(*texts)
    assert [row["address"] for row in rows if "address" in row] == [ids(rows, name="1"), ids(rows, name="2")]
    assert len(read(texts[0], texts[0])) == 1 + 2  # the museum is one, and not known to have one address


class Triple(NamedTuple):
    subject: int | str  # a number is a blank node
    predicate: str
    object: int | str


NODES = st.integers(0, 7) | st.sampled_from(["<http://x/a>", "<http://x/b>"])
TRIPLES = st.builds(Triple, NODES, st.sampled_from("pq"), NODES | st.sampled_from(['"1"', '"_:0"', '"2"@en']))


def written(triples: Sequence[Triple], labels: Sequence[str]) -> str:
    def term(name: int | str) -> str:
        return f"_:{labels[name]}" if isinstance(name, int) else name

    return "".join(f"{term(s)} <http://x/{p}> {term(o)} .\n" for s, p, o in triples)


@given(st.lists(TRIPLES, max_size=14), st.permutations("stuvwxyz"))
def test_labels_do_not_matter_and_no_two_nodes_become_one(triples: list[Triple], labels: list[str]) -> None:
    rows = read(written(triples, "01234567"))
    assert rows == read(written(triples, labels))
    assert len(rows) == len({triple.subject for triple in triples}) == len(set(ids(rows)))
    values = {str(value) for row in rows for name in ("p", "q") for value in row.get(name, [])}  # type: ignore[attr-defined]
    named = {value for value in values if value.startswith("_:") and value != "_:0"} | set(ids(rows))
    blanks = {name for triple in triples for name in (triple.subject, triple.object) if isinstance(name, int)}
    assert len({name for name in named if name.startswith("_:")}) == len(blanks)


@given(st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter_where_nodes_differ(chance: random.Random) -> None:
    ends: list[list[int | str]] = [[n + 1, f'"{n}"', 0] for n in range(7)]
    triples = [Triple(n, "p", chance.choice(end)) for n, end in enumerate(ends)]
    triples += [Triple(n, "q", f'"{n}"') for n in range(8)]
    before = read(written(triples, "01234567"))
    chance.shuffle(triples)
    assert sorted_values(before) == sorted_values(read(written(triples, "01234567")))


def sorted_values(rows: Iterable[Row]) -> list[Row]:
    return [{name: sorted(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows]


def test_long_chains_circles_and_equal_nodes_take_no_longer_than_reading_them() -> None:
    count = 5_000
    chain = [Triple("<http://x/a>", "p", 0), *(Triple(n, "p", n + 1) for n in range(count))]
    circle = [Triple(count + n, "p", count + (n + 1) % count) for n in range(count)]
    equal = [Triple(2 * count + n, "p", '"x"') for n in range(count)]
    rows = read(written([*chain, *circle, *equal], [str(n) for n in range(3 * count)]))
    assert len(set(ids(rows))) == 1 + 3 * count


def test_blank_nodes_in_types_and_triple_terms() -> None:
    text = '@prefix : <http://x/> . :a a [ :n 1 ] ; :p <<( _:b :q "_:c" )>> . << :a :q :b >> :by :c .'
    assert read(text, suffix=".ttl") == read(text.replace("_:b", "_:z"), suffix=".ttl")


def test_one_subject_in_several_files_is_one_entity(tmp_path: Path) -> None:
    (tmp_path / "labels.nt").write_text('<http://x/1> <http://x/name> "Alien" .\n<http://x/2> broken\n')
    (tmp_path / "years.ttl").write_text(
        '<http://x/1> <http://x/year> "1979" . <http://x/2> <http://x/year> 1986 .'
    )
    mapping = SourceMapping(
        file=["labels.nt", "years.ttl"],
        id="@id",
        iri="http://x/",
        attributes=["name", "year"],
        optional=["name"],
    )
    refusal, one, two = (event for _, event in read_events("s", mapping, tmp_path))
    assert isinstance(refusal, InvalidInput) and str(refusal).startswith("labels.nt:2: ")
    assert isinstance(one, Upsert) and one.attributes == {"name": ["Alien"], "year": [1979]}
    assert isinstance(two, Upsert) and two.attributes == {"year": [1986]}
