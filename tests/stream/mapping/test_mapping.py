"""Rows and change streams become entity events; everything else gets a reason."""

import json
import re
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from index.entity import Scalar
from stream.changes import Edge, LinkChange, UnreadCell
from stream.config import load_settings
from stream.errors import ConfigError, InvalidInput
from stream.events import Cause, Delete, EntityEvent, Link, Message, Upsert, decode_entity_event
from stream.mapping.decoder import make_decoder
from stream.mapping.language import NULL, Attribute, Join, Relation, SourceMapping, Template, check_topics
from stream.mapping.row import Row
from stream.mapping.row_mapper import JoinMapper, RowMapper
from tests.stream.mapping.mappings import AIRPORTS, FILMS, film, mapping, upserts


def map_row(source: str, mapping: SourceMapping, row: Row) -> list[EntityEvent]:
    return [*RowMapper(source, mapping).upserts(row)]


# --- one row


def test_a_row_becomes_its_entities() -> None:
    row = film(id=" 7 ", title="Alien ", year="1979", actor="S. Weaver; J. Hurt;;S. Weaver", prequel="3")
    events = map_row("imdb", mapping(FILMS), row)
    assert events == [
        Upsert("imdb", "person/S. Weaver", "person", {"name": "S. Weaver"}),
        Upsert("imdb", "person/J. Hurt", "person", {"name": "J. Hurt"}),
        Upsert(
            "imdb",
            "7",
            "film",
            {"title": "Alien", "year": 1979},
            {"starring": ["person/S. Weaver", "person/J. Hurt"], "sequel_of": ["3"]},
        ),
    ]


def test_blank_and_null_cells_are_absent() -> None:
    assert map_row("imdb", mapping(FILMS), film(title="  ", year=None, actor=" ; ")) == [
        Upsert("imdb", "1", "film")
    ]


@pytest.mark.parametrize("nothing", ["NULL", "\\N", "N/A", "n/a", " nan ", "NaN", "#N/A", "<NA>"])
def test_spellings_of_nothing_are_absent(nothing: str) -> None:
    relations = {
        "by": Relation("by", type="person", separator=";"),
        "place": Relation("place", id="{land}/{place}"),
    }
    attributes: dict[str, str | Attribute] = {"title": "title", "tags": Attribute("tags", "text", "|")}
    source = SourceMapping(
        id="id", type="t", type_column="kind", attributes=attributes, relations=relations, version="v"
    )
    row = {"id": "1", "kind": nothing, "by": f"A;{nothing}", "place": nothing, "land": "x", "v": nothing}
    person, event = map_row("s", source, row | {"title": nothing, "tags": f"{nothing}|b"})
    assert event == Upsert("s", "1", "t", {"tags": ["b"]}, {"by": ["person/A"]}) and person.id == "person/A"
    join = JoinMapper("s", Join(file="f", head="a", tail="b", relation="r"))
    assert join.edge({"a": "1", "b": nothing}) is None
    with pytest.raises(InvalidInput, match="id: the row has no id"):
        RowMapper("s", source).delete({"id": nothing})


def peak_bytes(work: Callable[[], object]) -> int:
    """What `work` allocated at most, beside what was there. It is expected to be refused."""
    tracemalloc.start()
    with pytest.raises(InvalidInput):
        work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_what_a_row_makes_is_bounded_before_it_is_made() -> None:
    """A row of a megabyte can ask for ids of 40 GB, or for as many entities as it has letters."""
    cities = Relation("cities", type="city", separator=",", id="{country}/{cities}")
    row = {"id": "1", "country": "x" * 400_000, "cities": ",".join(map(str, range(60_000)))}
    by_name = RowMapper("s", SourceMapping(id="id", relations={"in": cities}))
    assert peak_bytes(lambda: by_name.upserts(row)) < 20_000_000
    assert peak_bytes(lambda: by_name.upserts(row | {"country": "x"})) < 20_000_000
    by_id = RowMapper("s", SourceMapping(id="id", relations={"in": Relation("cities", separator=",")}))
    assert peak_bytes(lambda: by_id.upserts(row)) < 20_000_000
    with pytest.raises(InvalidInput, match="1024 characters") as long:
        RowMapper("s", SourceMapping(id="{id}/{country}")).upserts(row)
    with pytest.raises(InvalidInput, match="1024 characters"):
        JoinMapper("s", Join(file="f", head="id", tail="country", relation="r")).edge(row)
    assert long.value.reason == "bad-id" and len(str(long.value)) < 200


DEEP = SourceMapping(
    topic="t", id="id", attributes={"a": Attribute("a.b.c")}, columns={"a": "json"}, optional=["a.b.c"]
)


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("t", None, '{"id": "1", "a": {"b": %s}}'),
        ("t", None, '{"id": "1", "unmapped": %s}'),
        ("t", None, '{"payload": {"op": "c", "after": {"id": "1", "a": {"b": %s}}}, "schema": null}'),
        ("t", '{"id": "1", "more": {"a": %s}}', None),
        ("entities", None, '{"op": "delete", "source": "s", "id": "1", "unknown": {"a": %s}}'),
    ],
)
def test_what_is_nested_too_deep_is_refused_before_anything_walks_through_it(
    topic: str, key: str | None, value: str | None
) -> None:
    decode = make_decoder({"s": DEEP}, "entities", "links")

    def message(depth: int) -> Message:
        inside = depth - max(text.count("{") for text in (key, value) if text)
        lists = "[" * inside + "]" * inside
        raw_key, raw_value = (None if text is None else (text % lists).encode() for text in (key, value))
        return Message(Cause(topic, 0, 0), raw_key, raw_value, 0.0)

    assert decode(message(64))
    for depth in (65, 700):
        with pytest.raises(InvalidInput, match="nested deeper than 64") as refused:
            decode(message(depth))
        assert refused.value.reason == "too-deep"
    with pytest.raises(InvalidInput):
        decode(message(100_000))


def test_json_in_a_column_is_bounded_like_a_row() -> None:
    decode = make_decoder({"s": DEEP}, "entities", "links")
    for depth in (63, 64, 700):
        row = {"id": "1", "a": json.dumps({"b": {"c": "x"}})[:-1] + ',"c":' + "[" * depth + "]" * depth + "}"}
        message = Message(Cause("t", 0, 0), None, json.dumps(row).encode(), 0.0)
        if depth == 63:
            assert decode(message) == [Upsert("s", "1", "entity", {"a": "x"})]
        else:
            with pytest.raises(InvalidInput, match="nested deeper than 64"):
                decode(message)


def test_a_mapping_says_how_much_a_row_makes() -> None:
    source = {"id": "id", "relations": {"by": {"column": "by", "separator": ";", "type": "person"}}}
    row = {"id": "1", "by": "a;b;c;a"}
    for setting, complaint in (
        ({"max_entities": 2}, "3 entities of a row's names; 2 are allowed; raise `max_entities`"),
        ({"max_relations": 2}, "3 relations of a row; 2 are allowed; raise `max_relations`"),
    ):
        with pytest.raises(InvalidInput, match=complaint) as refused:
            map_row("s", msgspec.convert(source | setting, SourceMapping), row)
        assert refused.value.reason == "too-many"
    allowed = msgspec.convert(source | {"max_entities": 3, "max_relations": 3}, SourceMapping)
    assert len(map_row("s", allowed, row)) == 4


@pytest.mark.parametrize(
    ("country", "most", "complaint"),
    [
        ("x", {"max_entities": 2}, "22 entities of a message's names; 20 are allowed; raise `max_entities`"),
        ("x", {"max_relations": 2}, "22 relations of a message's rows; 20 are allowed; raise `max_rela"),
        ("x" * 1000, {}, "characters in the ids of a message's rows; 10,000,000 are allowed"),
    ],
)
def test_so_do_many_rows_in_one_message(country: str, most: dict[str, int], complaint: str) -> None:
    """Of a megabyte, 195 rows that are allowed each made 194,000 entities, and a minute of standstill."""
    by = {"column": "by", "separator": ";", "type": "city", "id": "{country}/{by}"}
    source = {"topic": "t", "envelope": "canal", "id": "id", "relations": {"by": by}, **most}
    decode = make_decoder({"s": msgspec.convert(source, SourceMapping)}, "entities", "links")
    names = ";".join("ab" if most else map(str, range(1000)))

    def message(count: int) -> Message:
        rows = [{"id": str(number), "country": country, "by": names} for number in range(count)]
        event = {"type": "INSERT", "isDdl": False, "data": rows}
        return Message(Cause("t", 0, 0), None, json.dumps(event).encode(), 0.0)

    assert len(decode(message(4))) == 4 * (3 if most else 1001)
    with pytest.raises(InvalidInput, match=complaint) as refused:
        decode(message(11))
    assert refused.value.reason == "too-many"


@pytest.mark.parametrize(
    "event, reason",
    [
        (Upsert("s", "1", "t" * 1025), "too-long"),
        (Upsert("s", "1", "t", {"a" * 1025: 1}), "too-long"),
        (Upsert("s", "1", "t", {}, {"r" * 1025: ["2"]}), "too-long"),
        (Upsert("s", "1", "t", {str(number): 1 for number in range(1001)}), "too-many"),
        (Upsert("s", "1", "t", {}, {str(number): ["2"] for number in range(1001)}), "too-many"),
        (Link("a:1", "b:1", "same", "x" * 1025), "too-long"),
        (Link("a:1", "b:1", "same", "x" * 1_000_000), "too-large"),
    ],
)
def test_what_stands_in_records_is_bounded(event: Upsert | Link, reason: str) -> None:
    decode = make_decoder({}, "entities", "links")
    cause = Cause("links" if isinstance(event, Link) else "entities", 0, 0)
    with pytest.raises(InvalidInput) as refused:
        decode(Message(cause, None, msgspec.json.encode(event), 0.0))
    assert refused.value.reason == reason


def test_a_mapping_says_what_is_a_spelling_of_nothing() -> None:
    words: list[Scalar] = ["NULL", "-", "Null", "NO", "none"]
    assert {"null", "\\N", "NaT", "#REF!", "0000-00-00"} <= {*NULL} and {"None", "NA", "NO"}.isdisjoint(NULL)
    row = {"id": "1", "a": words}
    cases: list[tuple[dict[str, object], list[Scalar]]] = [
        ({}, words[1:]),
        ({"null": []}, words),
        ({"null": ["-", "none"]}, ["NULL", "Null", "NO"]),
    ]
    for setting, left in cases:
        source = msgspec.convert({"id": "id", "attributes": ["a"], **setting}, SourceMapping)
        assert map_row("s", source, row) == [Upsert("s", "1", "entity", {"a": left})]
    with pytest.raises(msgspec.ValidationError, match="id: say which column"):
        msgspec.convert({"file": "a.jsonl", "null": []}, SourceMapping)


def test_nan_says_nothing() -> None:
    nan = float("nan")
    row = film(title=["Alien", nan], year=nan, actor=[nan, "A"], prequel=nan)
    events = upserts(map_row("imdb", mapping(FILMS), row))
    assert events["1"] == Upsert("imdb", "1", "film", {"title": ["Alien"]}, {"starring": ["person/A"]})


def test_nan_as_python_writes_it_into_json() -> None:
    text = json.dumps(film(id="N", title='"NaN"\\', year=float("nan"), actor=[float("nan"), "NaN, or NaN"]))
    (_, event) = decode(text.encode())
    assert event == Upsert("imdb", "N", "film", {"title": '"NaN"\\'}, {"starring": ["person/NaN, or NaN"]})
    for bad in (text.replace(" NaN,", " NaNs,", 1), text[:-4], '{"a": NaN, "' + '\\"' * 400_000):
        with pytest.raises(InvalidInput) as caught:
            decode(bad.encode())
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize("form", [lambda n: f" {n}.0 ", float, int, str])
def test_a_whole_number_in_an_id_may_be_written_as_a_decimal(form: Callable[[int], object]) -> None:
    relations = {
        "by": Relation("by", id="person/{by}"),
        "after": Relation("after", separator=";"),
        "place": Relation("place", type="place", id="{zip}/{place}"),
    }
    source = SourceMapping(id="{nr}-{part}", relations=relations, version="v")
    row = {"nr": form(12), "part": form(-3), "by": form(0), "after": f"{form(7)}; {form(8)}", "v": form(5)}
    place = {"zip": "10.0", "place": "9.0"}  # names, and not references
    *_, event = map_row("s", source, row | place)
    assert event == Upsert(
        "s",
        "12-%2D3",
        "entity",
        {},
        {"by": ["person/0"], "after": ["7", "8"], "place": ["place/10.0/9.0"]},
        version=5,
    )
    edge = JoinMapper("s", Join(file="f", head="a", tail="b", relation="r")).edge(
        {"a": form(1), "b": form(2)}
    )
    assert edge == Edge("s", "1", "r", "2")


@pytest.mark.parametrize("text", ["1.50", "1.00", "07.0", "1e3.0", "v1.0", "1.0.0", ".0", "1.0"])
def test_ids_that_stay_as_they_are_written(text: str) -> None:
    source = SourceMapping(id="id", columns={"id": "text"} if text == "1.0" else {})
    assert [event.id for event in map_row("s", source, {"id": text})] == [text]


def test_json_cells_keep_their_types_and_lists() -> None:
    row = film(id=5, title=["Alien", None, "Alien: 1979"], year=1979.5, actor=["A; B", "C"], prequel=4)
    events = upserts(map_row("imdb", mapping(FILMS), row))
    assert events["5"].attributes == {"title": ["Alien", "Alien: 1979"], "year": 1979.5}
    assert events["5"].relations == {
        "starring": ["person/A", "person/B", "person/C"],
        "sequel_of": ["4"],
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3.50", -3.5),
        ("0", 0),
        ("0.5", 0.5),
        ("1e-05", 1e-05),
        ("007", "007"),
        ("1E5", "1E5"),
        ("+1", "+1"),
        ("1.", "1."),
        (".5", ".5"),
        ("1,000", "1,000"),
        ("inf", "inf"),
        ("1e+999", "1e+999"),
        ("123456789012345", 123456789012345),
        ("1234567890123456", "1234567890123456"),
        ("1999-01-02", "1999-01-02"),
        ("٣", "٣"),
    ],
)
def test_which_texts_are_numbers(text: str, value: object) -> None:
    (event,) = map_row("imdb", mapping(FILMS), film(year=text))
    assert isinstance(event, Upsert)
    assert event.attributes == {"year": value}
    assert type(event.attributes["year"]) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.234,50", 1234.5),
        ("-0,5", -0.5),
        ("52,520", 52.52),
        ("1.234", 1234),
        ("7", 7),
        ("12.5", "12.5"),
        ("1,234.5", "1,234.5"),
        ("1,2,3", "1,2,3"),
        ("007,5", "007,5"),
        ("12.03.2001", "12.03.2001"),
    ],
)
def test_numbers_with_a_decimal_comma(text: str, value: object) -> None:
    source = SourceMapping(id="id", attributes=["a"], decimal=",")
    (event,) = map_row("s", source, {"id": "1,5", "a": text})
    assert isinstance(event, Upsert) and event.id == "1,5"
    assert event.attributes == {"a": value} and type(event.attributes["a"]) is type(value)


def test_kinds_and_separators_of_attributes() -> None:
    attributes = {
        "title": {"column": "t", "kind": "text"},
        "price": {"column": "p", "kind": "number"},
        "tags": {"column": "g", "separator": "|"},
    }
    source = msgspec.convert({"id": "id", "attributes": attributes}, SourceMapping)
    (event,) = map_row("s", source, {"id": "1", "t": "1984", "p": "9.5", "g": "a| |12"})
    assert isinstance(event, Upsert)
    assert event.attributes == {"title": "1984", "price": 9.5, "tags": ["a", 12]}
    with pytest.raises(InvalidInput, match="p: 'free' is not a number"):
        map_row("s", source, {"id": "1", "t": None, "p": "free", "g": None})


def test_types_by_other_names() -> None:
    types = {"Film": "film", "Work": "work"}
    source = SourceMapping(id="id", type="thing", type_column="kind", types=types)
    kinds = ["Film", "Novel", None, ["Agent", "Work", "Film"], ["Novel", "Agent"], []]
    found = [map_row("s", source, {"id": "1", "kind": kind}) for kind in kinds]
    expected = ["film", "Novel", "thing", "film", "Agent", "thing"]
    assert found == [[Upsert("s", "1", kind)] for kind in expected]
    with pytest.raises(ValueError, match="types: say in which column they stand as `type_column`"):
        SourceMapping(id="id", types=types)


def test_type_column_and_version() -> None:
    source = SourceMapping(id="id", type="thing", type_column="kind", version="v")
    row = {"id": "1", "kind": "film", "v": "17"}
    assert map_row("s", source, row) == [Upsert("s", "1", "film", version=17)]
    assert map_row("s", source, row | {"kind": "", "v": ""}) == [Upsert("s", "1", "thing")]


def test_an_entity_made_of_cells_leads_on() -> None:
    row = {"row": "1", "name": "O'Hare", "city": "Chicago", "country": "US"}
    events = upserts(map_row("airports", mapping(AIRPORTS), row))
    assert events["city/US/Chicago"].relations == {"country": ["country/US"]}
    assert events["country/US"].attributes == {"name": "US"}
    assert events["1"].attributes == {"label": "O'Hare"}


CELL = st.text("ab2/%", max_size=4)


@given(
    st.text("ab2/%", max_size=2),
    st.text("ab2/", min_size=1, max_size=3),
    st.lists(st.tuples(CELL, CELL), min_size=2, max_size=9, unique=True),
)
@example("", "a", [("", "aa"), ("a", "a"), ("aa", "")])
@example("a", "ab/", [("a", "bab/"), ("aab/b", "")])
def test_different_cells_give_different_ids(first: str, middle: str, cells: list[tuple[str, str]]) -> None:
    template = Template(f"{first}{{x}}{middle}{{y}}/")
    assert len({template.fill(pair) for pair in cells}) == len(cells)


def test_letters_of_a_template_stay_letters_in_ids() -> None:
    assert Template("title/{tconst}").fill(["tt0133093"]) == "title/tt0133093"
    assert Template("{kind}/no {n}").fill(["film/no", "on 1"]) == "film%2Fno/no on%201"
    assert Template("person/{id}").fill(["a/b%"]) == "person/a%2Fb%25"
    assert Template("{a}x{b}").fill(["xy", "yx"]) == "%78yxy%78"
    with pytest.raises(ValueError, match="% cannot part two columns"):
        Template("{a}%{b}")


@given(st.permutations(range(6)), st.data())
def test_the_order_of_rows_does_not_matter(order: list[int], data: st.DataObject) -> None:
    cells = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["Rome", "Paris", ""]), st.sampled_from(["US", "FR", ""])),
            min_size=6,
            max_size=6,
        )
    )
    rows = [{"row": str(n), "name": "", "city": c, "country": k} for n, (c, k) in enumerate(cells)]
    source = mapping(AIRPORTS)

    def state(rows: list[dict[str, str]]) -> dict[str, Upsert]:
        return upserts([event for row in rows for event in map_row("airports", source, row)])

    assert state(rows) == state([rows[n] for n in order])


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (
            {"id": "1", "title": "x"},
            "missing-column",
            "no column 'year', .*; there are 'id', ",
        ),
        (film(id=""), "bad-id", "no id"),
        (film(id=None), "bad-id", "no id"),
        (film(id=1.5), "bad-id", "not float"),
        (film(id=True), "bad-id", "not bool"),
        (film(id="x" * 1025), "bad-id", "1024"),
        (film(actor="x" * 1025), "bad-id", "1024"),
        (film(title={"en": "x"}), "bad-value", "title: .* not dict"),
        (film(title=[["x"]]), "bad-value", "title: .* not list"),
        (film(actor={"name": "x"}), "bad-value", "actor: .* not dict"),
        (film(title=float("inf")), "not-finite", "title"),
        (film(prequel=1.5), "bad-value", "prequel: .* not float"),
        (film(prequel=2.0**53), "bad-value", "prequel: .* not float"),
        (film(id=float("nan")), "bad-id", "no id"),
        (film(id=" NULL "), "bad-id", "no id"),
        (film(title=2**64), "not-finite", "64 bits"),
        (film(title="x" * 10_000_000), "too-large", "10000001 characters"),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, object], reason: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        map_row("imdb", mapping(FILMS), row)
    assert caught.value.reason == reason


VERSIONED = SourceMapping(id="id", version="v", optional=["v"])


@pytest.mark.parametrize(
    ("cell", "version"),
    [
        (17, 17),
        (" 17 ", 17),
        ("1706832000123456000", 1706832000123456000),
        ("9007199254740993.0", 9007199254740993),
        ("+7", 7),
        ("-007", -7),
        (5.0, 5),
        (1706832000.123456, 1706832000.123456),
        ("1706832000.5", 1706832000.5),
        ({"scale": 1, "value": "fQA="}, 3200),
        ("2024-02-02T00:00:00.123456Z", 1706832000123456),
        ("2024-02-02T00:00:00.123456789Z", 1706832000123456),
        ("2024-02-02 01:00:00+01", 1706832000000000),
        ("2024-02-02 00:00:00 UTC", 1706832000000000),
        ("2024-02-02T00:00", 1706832000000000),
        ("2024-02-02", 1706832000000000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("0001-01-01T00:00:00Z", -62135596800000000),
        ("", None),
        ("NULL", None),
        (float("nan"), None),
    ],
)
def test_versions(cell: object, version: float | None) -> None:
    (event,) = map_row("s", VERSIONED, {"id": "1", "v": cell})
    assert event == Upsert("s", "1", "entity", version=version) and type(event.version) is type(version)
    assert decode_entity_event(None, msgspec.json.encode(event)) == event


@pytest.mark.parametrize(
    "bad",
    [
        "new",
        1.5,
        "1.10",
        2**63,
        -1e30,
        float("inf"),
        True,
        [1],
        {},
        "9" * 5000,
        "2024-13-01",
        "2024-02-02x",
        "1_0",
    ],
)
def test_what_is_no_version(bad: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        map_row("s", VERSIONED, {"id": "1", "v": bad})
    assert caught.value.reason == "bad-version" and len(str(caught.value)) < 200


@given(
    st.lists(st.datetimes(min_value=datetime(1974, 1, 1)), min_size=2, max_size=2), st.sampled_from([0, 3])
)
def test_times_order_versions(moments: list[datetime], hours: int) -> None:
    """As texts of any zone, and as whole numbers beside numbers with a fraction."""
    one, other = (moment.replace(tzinfo=UTC) for moment in moments)

    def version(cell: object) -> float:
        (event,) = map_row("s", VERSIONED, {"id": "1", "v": cell})
        assert event.version is not None
        return event.version

    zone = timezone(timedelta(hours=-hours))
    assert (version(one.isoformat()) < version(other.astimezone(zone).isoformat(" "))) == (one < other)
    earlier = other.replace(microsecond=0)
    assert (version(one.timestamp()) < version(int(earlier.timestamp()))) == (one < earlier)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"m": "Quarry"}, "m.n: an object with 'n' is expected, not 'Quarry'"),
        ({"m": ["Quarry"]}, "m.n: an object with 'n' is expected"),
        ({"m": 5}, "m.n: an object"),
        ({"j": "{'n': 1}"}, "j: \"{'n': 1}\" is no JSON: JSON is malformed"),
        ({"j": "Quarry"}, "j: 'Quarry' is no JSON"),
        ({"j": '"Quarry"'}, "j.n: an object with 'n' is expected"),
    ],
)
def test_a_path_that_leads_into_a_text(row: dict[str, object], message: str) -> None:
    source = SourceMapping(
        id="id", attributes=["m.n", "j.n"], relations={"r": Relation("j.i")}, columns={"j": "json"}
    )
    nothing = {"id": "1", "m": "NULL", "j": " "}
    assert map_row("s", source, nothing) == [Upsert("s", "1", "entity")]
    assert map_row("s", source, nothing | {"m": {"o": 1}, "j": "[]"}) == [Upsert("s", "1", "entity")]
    assert map_row("s", source, nothing | {"j": "null", "m": [float("nan"), {"n": 2}, None]}) == [
        Upsert("s", "1", "entity", {"m.n": [2]})
    ]
    with pytest.raises(InvalidInput, match=message) as caught:
        map_row("s", source, nothing | row)
    assert caught.value.reason == "bad-value"


def test_optional_columns_may_be_missing() -> None:
    source = SourceMapping(id="id", attributes=["title", "site"], optional=["site"])
    assert map_row("s", source, {"id": "1", "title": "x"}) == [Upsert("s", "1", "entity", {"title": "x"})]


# --- mappings that say too little or too much


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", r"sources\.s: .*colour"),
        ('id = "id"\nattributes = {a = {column = "a", kind = "colour"}}', "colour.*kind"),
        ('attributes = ["a"]', "id: say which column"),
        ('file = "a.jsonl"\ntriples = "t.csv"', "triples"),
        ('id = "{a}{b}"', "put a character between"),
        ('id = "{a"', "not a column or a template"),
        ('id = "id"\nrelations = {r = {column = "a", id = "{b}"}}', r"must contain \{a\}"),
        ('id = "id"\nrelations = {r = {column = "a", type = "x/y"}}', "without '/'"),
        ('id = "id"\nrelations = {r = {column = "a", separator = ""}}', "separator"),
        ('id = "id"\nrelations = {r = {column = "a", relations = {q = {column = "b"}}}}', "need a type"),
        (
            'id = "id"\nrelations = {r = {column = "a", type = "t", relations = {q = {column = "b"}}}}',
            "column 'b' has to be in the id's template",
        ),
        ('id = "id"\ncolumns = {price = "decimal"}', "columns.price: 'decimal' is none of date, "),
        ('id = "id"\ncolumns = {price = "date"}', "columns.price: the mapping reads no such column"),
        ('id = "id"\niri = "no iri"', "iri: 'no iri' is no IRI"),
        ('id = "id"\nkey_columns = ["shard"]', "key_columns: the mapping reads no column 'shard'"),
        ('id = "id"\nkey_columns = ["id"]\nignore_key = true', "ignore_key: `key_columns` are read"),
        ("ignore_key = true", "id: say which column"),
        ('tables.t = {topic = "t"}', "tables.t: id: say which column"),
        ('tables.t = {id = "id"}', "tables.t: topic: say where the rows come from"),
        (
            'topic = "t"\ntables.t = {topic = "u", id = "id"}',
            "id: say which column holds a row's id, or move",
        ),
        ('id = "id"\njoins.j = {topic = "j", head = "a", tail = "b"}', "relation: name it"),
        ('id = "id"\njoins.j = {head = "a", tail = "b", relation = "r"}', "topic: say where"),
        ('id = "id"\njoins.j = {topic = "j", head = "{a", tail = "b", relation = "r"}', "head: '{a' is not"),
        ('joins.j = {topic = "j", head = "a", tail = "b", relation = "r"}', "joins: belong to rows"),
        ('id = "id"\nrelations = {"~r" = {column = "a"}}', "'~r': a name must not begin with '~'"),
        (
            'id = "id"\nrelations = {r = {column = "a", type = "t", relations = {"~q" = {column = "a"}}}}',
            "'~q': a name must not begin",
        ),
        ('tables.t = {topic = "t", id = "i", relations = {"~r" = {column = "a"}}}', "'~r': a name must"),
        ('id = "id"\njoins.j = {topic = "j", head = "a", tail = "b", relation = "~r"}', "'~r': a name must"),
        (
            'id = "id"\n'
            'relations.r = {column = "a", id = "{b}/{a}", type = "t"}\n'
            'relations.q = {column = "a", id = "{b}-{a}", type = "t"}',
            "another relation makes entities of type 't'",
        ),
    ],
)
def test_wrong_mappings_say_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sameas.toml"
    path.write_text(f"[sources.s]\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_settings(path, {})


def test_mapping_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read"):
        load_settings(tmp_path / "gone.toml", {})
    for text in ("[sources", f"x = {'[' * 1000}{']' * 1000}"):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ConfigError, match=r"bad\.toml"):
            load_settings(tmp_path / "bad.toml", {})


# --- topics


def message(value: object, key: object = None, topic: str = "shop.public.film") -> Message:
    def encoded(part: object) -> bytes | None:
        return part if part is None or isinstance(part, bytes) else json.dumps(part).encode()

    return Message(Cause(topic, 0, 1), encoded(key), encoded(value), 0.0)


def decode(value: object, key: object = None, topic: str = "shop.public.film") -> Sequence[object]:
    sources = {"imdb": mapping(FILMS), "plain": SourceMapping(topic="plain")}
    return make_decoder(sources, "sameas.entities", "sameas.links")(message(value, key, topic))


ROW = film(id="tt1", title="Alien")
KEYS = [{"id": "tt1"}, {"schema": {"type": "struct"}, "payload": {"id": "tt1"}}, "tt1", b"tt1"]


@pytest.mark.parametrize("operation", ["c", "u", "r"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_envelopes_and_plain_rows_mean_the_same(operation: str, wrapped: bool) -> None:
    envelope: dict[str, object] = {"before": None, "after": ROW, "op": operation, "source": {}, "ts_ms": 1}
    value = {"schema": {"type": "struct"}, "payload": envelope} if wrapped else envelope
    expected = [Upsert("imdb", "tt1", "film", {"title": "Alien"})]
    assert decode(value, {"id": "tt1"}) == decode(ROW) == expected


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        {"op": "d", "before": {"id": "other"}, "after": None},
        {"op": "d", "before": None},
        {"schema": {}, "payload": {"op": "d", "before": None, "after": None}},
        {"schema": {}, "payload": None},
    ],
)
def test_every_form_of_a_deletion(key: object, value: object) -> None:
    assert decode(value, key) == [Delete("imdb", "tt1")]


@pytest.mark.parametrize(
    ("key", "expected"), [(b"12", "12"), ({"id": 12}, "12"), (b"007", "007"), (b"true", "true")]
)
def test_bare_keys_are_ids_as_they_are_written(key: object, expected: str) -> None:
    assert decode(None, key) == [Delete("imdb", expected)]


def test_a_key_of_several_columns_is_the_id_that_the_rows_have() -> None:
    source = SourceMapping(topic="t", id="{kind}/{number}")
    decoder = make_decoder({"s": source}, "e", "l")
    (event,) = decoder(message({"kind": "a/b", "number": 7}, topic="t"))
    assert isinstance(event, Upsert)
    assert decoder(message(None, {"kind": "a/b", "number": 7}, "t")) == [Delete("s", event.id)]
    with pytest.raises(InvalidInput, match="no object with kind, number") as caught:
        decoder(message(None, b"7", "t"))
    assert caught.value.reason == "no-key"


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, None, "no-key"),
        ({"op": "d", "before": {"id": "tt1"}, "after": None}, None, "no-key"),
        (None, {"number": 1}, "no-key"),
        (None, b"\xff", "no-key"),
        (None, b"", "bad-id"),
        (None, {"id": None}, "bad-id"),
        (b"", None, "malformed"),
        (b"{", None, "malformed"),
        (b"\xff", None, "malformed"),
        (b"[1]", None, "malformed"),
        (b"[" * 100_000, None, "malformed"),
        (b'{"after": {"id": "1", "id": "2"}, "op": "c"}', None, "malformed"),
        ({"schema": {}, "payload": 7}, None, "malformed"),
        ({"op": "u", "after": None}, {"id": "tt1"}, "malformed"),
        ({"op": "t", "before": None, "after": None}, None, "unsupported-op"),
        ({"id": "tt1"}, None, "missing-column"),
        (b'"' + b"x" * 10_000_000 + b'"', None, "too-large"),
    ],
)
def test_messages_that_cannot_be_used(value: object, key: object, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(value, key)
    assert caught.value.reason == reason


@given(st.binary(max_size=60) | st.none(), st.binary(max_size=20) | st.none())
def test_no_message_raises_anything_else(value: bytes | None, key: bytes | None) -> None:
    for topic in ("shop.public.film", "plain", "sameas.entities", "sameas.links"):
        try:
            decode(value, key, topic)
        except InvalidInput as error:
            assert error.reason and error.reason == error.reason.lower()


json_values = st.recursive(
    st.sampled_from([None, True, 1.5, 7, -(2**70), "d", "u", "x"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["op", "after", "id"]), part),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ROW, "op", "after", "before", "payload", "schema"]), json_values))
def test_no_row_raises_anything_else(row: dict[str, object]) -> None:
    try:
        decode(ROW | row, {"id": "1"})
    except InvalidInput as error:
        assert error.reason


def test_canonical_topics() -> None:
    event = {"op": "upsert", "source": "plain", "id": "1", "type": "t"}
    assert (
        decode(event, topic="plain") == decode(event, None, "sameas.entities") == [Upsert("plain", "1", "t")]
    )
    assert decode(None, b"plain:1", "sameas.entities") == [Delete("plain", "1")]
    with pytest.raises(InvalidInput, match="the key 'id' is twice"):
        decode(json.dumps(event).replace('"id"', '"id": "2", "id"').encode(), topic="sameas.entities")
    with pytest.raises(InvalidInput) as caught:
        decode(event | {"source": "other"}, topic="plain")
    assert caught.value.reason == "wrong-source"


@pytest.mark.parametrize("key", [b"1", b'"plain:1"', b"", b"Plain:1", b"\xff", b"plain:1 ", b"x" * 2000])
def test_a_canonical_event_has_its_own_key(key: bytes) -> None:
    """Compaction would take two entities for one, and a delete would not find its entity."""
    event = {"op": "upsert", "source": "plain", "id": "1", "type": "t"}
    link = {"left": "a:1|", "right": "b:2"}
    for value, topic, expected in (
        (event, "plain", "plain:1"),
        (event, "sameas.entities", "plain:1"),
        (event | {"op": "delete"}, "sameas.entities", "plain:1"),
        (link, "sameas.links", "a:1%7C|b:2"),
    ):
        assert decode(value, expected.encode(), topic) == decode(value, None, topic)
        with pytest.raises(InvalidInput, match=f"has to be {re.escape(expected)}$") as caught:
            decode(value, key, topic)
        assert caught.value.reason == "bad-key" and len(str(caught.value)) < 500
    assert decode(link, b"b:2|a:1%7C", "sameas.links")


@pytest.mark.parametrize("key", [b'"plain:1"', b'{"source": "plain", "id": "1"}', b"Struct{id=plain:1}"])
def test_a_tombstone_under_a_key_of_another_serializer_says_how_keys_are(key: bytes) -> None:
    """Their first letters were taken for a source."""
    with pytest.raises(InvalidInput, match="has to be source:id as plain text") as caught:
        decode(None, key, "sameas.entities")
    assert caught.value.reason == "bad-key"


@pytest.mark.parametrize("nothing", [b"", b" ", b"null", b'""'])
@pytest.mark.parametrize("topic", ["shop.public.film", "plain", "sameas.entities", "sameas.links"])
def test_a_value_that_says_nothing_is_no_deletion(nothing: bytes, topic: str) -> None:
    with pytest.raises(InvalidInput, match="a message that deletes has no value at all") as caught:
        decode(nothing, b"plain:1", topic)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("value", [b"\0\0\0\0\7\2", (1).to_bytes(8, "big") + b'{"d":{"id":{"v":1}}}'])
def test_a_binary_value_is_said_to_be_that(value: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"this is binary, as Avro .* TiCDC's open protocol") as caught:
        decode(value, b"1")
    assert caught.value.reason == "malformed"


def test_links() -> None:
    link = {"left": "a:1", "right": "b:2", "verdict": "different"}
    assert decode(link, topic="sameas.links") == [LinkChange("a:1", "b:2", Link("a:1", "b:2", "different"))]
    assert decode(None, b"a:1|b:2", "sameas.links") == [LinkChange("a:1", "b:2", None)]


def test_the_graphs_name_for_a_relations_tail_is_nobody_elses() -> None:
    join = Join(topic="j", head="a", relation_column="r", tail="b")
    decode = make_decoder({"s": SourceMapping(id="id", joins={"j": join})}, "e", "l")
    event = {"op": "upsert", "source": "s", "id": "1", "type": "film", "relations": {"~x": ["2"]}}
    for topic, value in (("e", event), ("j", {"a": "1", "r": "~x", "b": "2"})):
        with pytest.raises(InvalidInput, match="'~x': a name must not begin with '~'") as caught:
            decode(message(value, topic=topic))
        assert caught.value.reason == "bad-relation"
    assert decode(message(event | {"relations": {"x~": ["2"]}}, topic="e"))


def test_filled_cells_that_a_message_has_for_nothing_come_along() -> None:
    """Before the row's own entity, as rows of files tell the account."""
    source = SourceMapping(
        topic="t",
        id="id",
        attributes={"maker": "maker.name", "at": "at"},
        relations={"by": Relation("by", type="person")},
        columns={"at": "date"},
    )
    decode = make_decoder({"s": source}, "e", "l")
    row = {"id": 1, "maker": {"nome": "Fox"}, "at": "soon", "by": "Ann"}
    *before, own = decode(message({"op": "u", "after": row}, topic="t"))
    assert before[1:] == [
        UnreadCell("at: date could not read 'soon'"),
        UnreadCell("maker.name: nothing found in {'nome': 'Fox'}"),
    ]
    assert own == Upsert("s", "1", "entity", {"at": "soon"}, {"by": ["person/Ann"]})
    assert len(decode(message({**row, "maker": {"name": "Fox"}, "at": "2001-01-01"}, topic="t"))) == 2


def test_topics_have_one_meaning() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode({}, topic="somebody.elses")
    assert caught.value.reason == "unknown-topic"
    with pytest.raises(ConfigError, match=r"sources\.b\.topic: t is already read"):
        check_topics({"a": SourceMapping(topic="t"), "b": SourceMapping(topic="t")}, "e", "l", ())
    with pytest.raises(ConfigError, match=r"sources\.a\.topic: e is already read"):
        check_topics({"a": SourceMapping(topic="e")}, "e", "l", ())


def test_two_tables_of_one_topic_are_an_error_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "sameas.toml"
    path.write_text('[sources.a.tables]\nx = {topic = "t", id = "id"}\ny = {topic = "t", id = "nr"}\n')
    with pytest.raises(
        ConfigError, match=r"sources\.a\.tables\.y\.topic: t is already read as something else"
    ):
        load_settings(path, {})
