"""Debezium's types: read from the schema where there is one, else from the mapping."""

import base64
import contextlib
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.entity import Value
from stream.errors import InvalidInput
from stream.events import Cause, Delete, Message, Upsert
from stream.mapping.column_types import _variable_decimal, by_schema, converter, is_unavailable
from stream.mapping.decoder import make_decoder
from stream.mapping.language import SourceMapping
from stream.mapping.row_mapper import RowMapper

TYPED: dict[str, tuple[dict[str, Any], object, str, object]] = {
    # column: (schema, what is sent, the type in a mapping, what it means)
    "price": (
        {"name": "org.apache.kafka.connect.data.Decimal", "type": "bytes", "parameters": {"scale": "1"}},
        "Vw==",
        "decimal(1)",
        8.7,
    ),
    "released": ({"name": "io.debezium.time.Date", "type": "int32"}, 10681, "date", "1999-03-31"),
    "seen": (
        {"name": "io.debezium.time.MicroTimestamp", "type": "int64"},
        922_881_600_000_001,
        "timestamp-micros",
        "1999-03-31T12:00:00Z",
    ),
    "old": (
        {"name": "io.debezium.time.Timestamp", "type": "int64"},
        -1,
        "timestamp-millis",
        "1969-12-31T23:59:59Z",
    ),
    "at": (
        {"name": "io.debezium.time.MicroTime", "type": "int64"},
        43_200_000_000,
        "time-micros",
        "12:00:00",
    ),
    "length": (
        {"name": "io.debezium.time.MicroDuration", "type": "int64"},
        8_165_000_000,
        "duration-micros",
        "PT2H16M5S",
    ),
    "more": (
        {"name": "io.debezium.data.Json", "type": "string"},
        '{"maker": {"name": "Fox"}}',
        "json",
        "Fox",
    ),
}


def shop(*, typed: bool) -> SourceMapping:
    attributes = {name: name for name in TYPED} | {"more": "more.maker.name"}
    columns = {name: logical for name, (_, _, logical, _) in TYPED.items()} if typed else {}
    mapping = {"topic": "t", "id": "id", "type": "film", "attributes": attributes, "columns": columns}
    return msgspec.convert(mapping, SourceMapping)


def envelope(*, schemas: bool) -> bytes:
    """As Debezium writes a snapshot's row."""
    after: dict[str, object] = {"id": 1, **{name: sent for name, (_, sent, _, _) in TYPED.items()}}
    payload = {"before": None, "after": after, "source": {"lsn": 1}, "op": "r", "ts_ms": 1}
    if not schemas:
        return json.dumps(payload).encode()
    fields: list[dict[str, object]] = [{"field": "id", "type": "int32"}]
    fields += [{"field": name, "optional": True, **schema} for name, (schema, _, _, _) in TYPED.items()]
    row = {"type": "struct", "fields": fields, "optional": True}
    schema = {
        "type": "struct",
        "fields": [{"field": "before", **row}, {"field": "after", **row}, {"field": "op", "type": "string"}],
    }
    return json.dumps({"schema": schema, "payload": payload}).encode()


@pytest.mark.parametrize(("schemas", "typed"), [(True, False), (False, True), (True, True)])
def test_values_mean_the_same_with_and_without_a_schema(schemas: bool, typed: bool) -> None:
    decode = make_decoder({"shop": shop(typed=typed)}, "e", "l")
    (event,) = decode(Message(Cause("t", 0, 0), b'{"id":1}', envelope(schemas=schemas), 0.0))
    assert isinstance(event, Upsert)
    assert event.attributes == {name: meant for name, (_, _, _, meant) in TYPED.items()}


@pytest.mark.parametrize("typed", [{}, {"at": "timestamp-micros"}])
def test_a_version_is_the_same_with_and_without_a_schema(typed: dict[str, str]) -> None:
    field = {"field": "at", "type": "int64", "name": "io.debezium.time.MicroTimestamp"}
    schema = {"type": "struct", "fields": [{"field": "id", "type": "int32"}, field]}
    row = {"id": 1, "at": 1706832000123456}
    mapping = SourceMapping(topic="t", id="id", attributes=["at"], version="at", columns=typed)
    decode = make_decoder({"s": mapping}, "e", "l")
    for value in (row, {"schema": schema, "payload": row}, {"op": "c", "after": row}):
        (event,) = decode(Message(Cause("t", 0, 0), b"1", json.dumps(value).encode(), 0.0))
        assert isinstance(event, Upsert) and event.version == row["at"]


def test_what_the_schema_explained_is_not_read_twice() -> None:
    """A number too long for a double is text then, and might be base64, too."""
    long = base64.b64encode((10**19 + 1).to_bytes(9, "big")).decode()
    parameters = {"scale": "0"}
    field = {"field": "nr", "name": "org.apache.kafka.connect.data.Decimal", "parameters": parameters}
    schema = {"type": "struct", "fields": [{"field": "id"}, field]}
    mapping = SourceMapping(topic="t", id="id", attributes=["nr"], columns={"nr": "decimal(0)"})
    value = json.dumps({"schema": schema, "payload": {"id": 1, "nr": long}}).encode()
    (event,) = make_decoder({"s": mapping}, "e", "l")(Message(Cause("t", 0, 0), b"1", value, 0.0))
    assert isinstance(event, Upsert) and event.attributes == {"nr": "10000000000000000001"}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**11), max_value=10**11))
def test_decimals_are_numbers_again(value: Decimal) -> None:
    unscaled = int(value.scaleb(3))
    sent = base64.b64encode(unscaled.to_bytes(9, "big", signed=True)).decode()
    found = converter("decimal(3, base64)")(sent)
    assert isinstance(found, int | float) and Decimal(str(found)) == value


@pytest.mark.parametrize("text", ["7", "1250", "12345678", "123456789012345678"])
def test_digits_are_a_number_unless_they_are_said_to_be_base64(text: str) -> None:
    for logical in ("decimal(2)", "decimal(0)"):
        mapping = SourceMapping(topic="t", id="id", attributes=["nr"], columns={"nr": logical})
        (event,) = RowMapper("s", mapping).upserts({"id": 1, "nr": text})
        assert event.attributes == {"nr": int(text) if len(text) <= 15 else text}
    assert converter("decimal(2)")("12.50") == "12.50"
    assert converter("decimal(2,base64)")("1250") == converter("decimal(2, base64)")("1250") == -26587
    sent = base64.b64encode((-2658700).to_bytes(3, "big", signed=True)).decode()
    assert sent == "1250"
    schema = {"name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    assert by_schema(schema, sent) == -26587


def test_what_does_not_fit_stays() -> None:
    assert converter("date")("2001-03-31") == "2001-03-31"
    assert converter("date")(2**31 - 1) == 2**31 - 1  # PostgreSQL's infinity
    assert converter("timestamp-micros")(True) is True
    assert converter("timestamp-nanos")(2**63 - 1) == "2262-04-11T23:47:16Z"
    assert converter("decimal(2)")("not base64!") == "not base64!"
    huge = base64.b64encode(b"\1" * 9000).decode()
    assert converter("decimal(2)")(huge) == huge
    for scale in (-100_000_000, 300_000_000):  # hours, and gigabytes
        far = {"scale": scale, "value": "AQ=="}
        assert _variable_decimal(far) is far
    with pytest.raises(ValueError, match=r"'\{' is no JSON"):
        converter("json")("{")
    assert by_schema({"name": "io.debezium.data.Json"}, "{") == "{"
    huge = base64.b64encode((10**20 + 1).to_bytes(9, "big")).decode()
    assert converter("decimal(2)")(huge) == "1000000000000000000.01"
    long = base64.b64encode((10**40 + 1).to_bytes(18, "big")).decode()
    assert converter("decimal(0)")(long) == str(10**40 + 1)
    with pytest.raises(ValueError, match="'day' is none of date, timestamp-millis"):
        converter("day")


@pytest.mark.parametrize("logical", [None, "decimal(2)", "text"])
@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"scale": 1, "value": "fQ=="}, 12.5),
        ({"value": "BNI=", "scale": 2}, 12.34),
        ({"scale": 0, "value": "Bw=="}, 7),
        ({"scale": -2, "value": "/w=="}, -100),
        ([{"scale": 1, "value": "fQ=="}, None, {"scale": 2, "value": "BNI="}], [12.5, 12.34]),
        ({"x": 10.5, "y": 59.25, "wkb": "AA==", "srid": None}, "POINT(10.5 59.25)"),
        ({"x": 1, "y": 2}, "POINT(1 2)"),
    ],
)
def test_objects_that_say_what_they_are(sent: object, meant: Value, logical: str | None) -> None:
    """Decimals with a scale of their own, and points, as they come without schemas."""
    columns = {} if logical is None else {"a": logical}
    mapper = RowMapper("s", SourceMapping(id="id", attributes=["a"], columns=columns))
    (event,) = mapper.upserts({"id": {"scale": 0, "value": "Bw=="}, "a": sent})
    assert event == Upsert("s", "7", "entity", {"a": meant})
    assert mapper.delete({"id": {"scale": 0, "value": "Bw=="}}).id == "7"


@pytest.mark.parametrize(
    "sent",
    [
        {"scale": 1, "value": 5},
        {"scale": "1", "value": "fQ=="},
        {"scale": 1, "value": "no!"},
        {"scale": 1},
        {"x": 1},
        {"x": 1, "y": 2, "z": 3},
        {},
    ],
)
def test_other_objects_are_no_values(sent: object) -> None:
    with pytest.raises(InvalidInput, match="a: text, number, boolean or a list is expected, not dict"):
        RowMapper("s", SourceMapping(id="id", attributes=["a"])).upserts({"id": 1, "a": sent})


def test_nested_schemas() -> None:
    schema = {
        "type": "struct",
        "fields": [
            {"field": "a", "type": "array", "items": {"type": "int32", "name": "io.debezium.time.Date"}},
            {"field": "v", "type": "struct", "name": "io.debezium.data.VariableScaleDecimal"},
            {"field": "p", "type": "struct", "name": "io.debezium.data.geometry.Point"},
            {"field": "s", "type": "string", "name": "io.debezium.data.EnumSet"},
        ],
    }
    row = {"a": [0, 1], "v": {"scale": 2, "value": "ew=="}, "p": {"x": 1.5, "y": 2.0}, "s": "x,y", "z": 1}
    assert by_schema(schema, row) == {
        "a": ["1970-01-01", "1970-01-02"],
        "v": 1.23,
        "p": "POINT(1.5 2.0)",
        "s": ["x", "y"],
        "z": 1,
    }


def test_the_key_is_read_as_its_schema_says() -> None:
    """A NUMERIC primary key: the row and its deletion must name one entity."""
    number = {
        "field": "nr",
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "parameters": {"scale": "0"},
    }
    schema = {"type": "struct", "fields": [number]}
    key = json.dumps({"schema": schema, "payload": {"nr": "Vw=="}}).encode()
    value = json.dumps({"schema": schema, "payload": {"nr": "Vw=="}}).encode()
    plain = SourceMapping(topic="t", id="nr")
    decode = make_decoder({"s": plain}, "e", "l")
    assert decode(Message(Cause("t", 0, 0), key, value, 0.0)) == [Upsert("s", "87", "entity")]
    assert decode(Message(Cause("t", 0, 1), key, None, 0.0)) == [Delete("s", "87")]
    decode = make_decoder({"s": SourceMapping(topic="t", id="nr", columns={"nr": "decimal(0)"})}, "e", "l")
    bare = b'{"nr":"Vw=="}'
    assert decode(Message(Cause("t", 0, 0), bare, bare, 0.0)) == [Upsert("s", "87", "entity")]
    assert decode(Message(Cause("t", 0, 1), bare, None, 0.0)) == [Delete("s", "87")]


LEFT_OUT = "__debezium_unavailable_value"
DAY = {"type": "array", "items": {"type": "int32", "name": "io.debezium.time.Date"}}
AMOUNT = {"name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}


@pytest.mark.parametrize("typed", [{}, {"plot": "json"}, {"plot": "date"}, {"plot": "decimal(2)"}])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("left_out", "field"),
    [
        (LEFT_OUT, {"type": "string"}),
        (LEFT_OUT, {"type": "string", "name": "io.debezium.data.Json"}),
        ([LEFT_OUT], {"type": "array", "items": {"type": "string"}}),
        ([*LEFT_OUT.encode()], {"type": "array", "items": {"type": "int64"}}),
        ([float(byte) for byte in LEFT_OUT.encode()], {"type": "array", "items": {"type": "double"}}),
        ([*LEFT_OUT.encode()], DAY),
        ([base64.b64encode(LEFT_OUT.encode()).decode()], {"type": "array", "items": {"type": "bytes"}}),
        (base64.b64encode(LEFT_OUT.encode()).decode(), {"type": "bytes"}),
        (base64.b64encode(LEFT_OUT.encode()).decode(), AMOUNT),
        (LEFT_OUT.encode().hex(), {"type": "string"}),
        (["b68a35a7-17ad-35b3-af2a-ae46edb4545a"], {"type": "array", "items": {"type": "string"}}),
        ({LEFT_OUT: LEFT_OUT}, {"type": "map"}),
        (json.dumps({LEFT_OUT: LEFT_OUT}), {"type": "string", "name": "io.debezium.data.Json"}),
        (json.dumps({LEFT_OUT: LEFT_OUT}, separators=(",", ":")), {"type": "string"}),
    ],
)
def test_a_value_that_was_left_out_is_no_value(
    left_out: object, field: dict[str, Any], wrapped: bool, typed: dict[str, str]
) -> None:
    """In every shape that Debezium's PostgreSQL connector gives the placeholder."""
    row: dict[str, object] = {"id": 1, "plot": left_out}
    after = {"type": "struct", "fields": [{"field": "id", "type": "int32"}, {"field": "plot", **field}]}
    schema = {"type": "struct", "fields": [{"field": "after", **after}]}
    envelope = {"before": None, "after": row, "op": "u"}
    value = {"schema": schema, "payload": envelope} if wrapped else envelope
    message = Message(Cause("t", 0, 0), b"1", json.dumps(value).encode(), 0.0)

    def decode(**columns: object) -> object:
        mapping = {"topic": "t", "id": "id", "columns": typed if columns else {}, **columns}
        return make_decoder({"s": msgspec.convert(mapping, SourceMapping)}, "e", "l")(message)

    assert decode() == [Upsert("s", "1", "entity")]
    for columns in (
        {"attributes": ["plot"]},
        {"attributes": {"city": "plot.city"}},
        {"relations": {"of": {"column": "plot", "separator": ","}}},
    ):
        with pytest.raises(InvalidInput, match=r"^plot: .*REPLICA IDENTITY FULL") as caught:
            decode(**columns)
        assert caught.value.reason == "unavailable-value"
    joins = {"j": {"topic": "t", "head": "id", "tail": "plot", "relation": "of"}}
    with pytest.raises(InvalidInput, match="plot") as caught:
        make_decoder({"s": msgspec.convert({"id": "id", "joins": joins}, SourceMapping)}, "e", "l")(message)
    assert caught.value.reason == "unavailable-value"


@pytest.mark.parametrize("kept", [[95, 95], [*LEFT_OUT.encode()][1:], f"It says {LEFT_OUT}", {"a": "b"}])
def test_what_only_resembles_a_value_that_was_left_out(kept: object) -> None:
    assert not is_unavailable(kept)


def test_a_flattened_row_may_say_that_it_is_deleted() -> None:
    decode = make_decoder({"s": SourceMapping(topic="t", id="id")}, "e", "l")
    for deleted, event in (("true", Delete("s", "1")), ("false", Upsert("s", "1", "entity"))):
        value = json.dumps({"id": 1, "__deleted": deleted}).encode()
        assert decode(Message(Cause("t", 0, 0), b'{"id":1}', value, 0.0)) == [event]


LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        [
            "struct",
            "array",
            "Vw==",
            "after",
            "id",
            "price",
            "r",
            *(str(s.get("name")) for s, *_ in TYPED.values()),
        ]
    )
)
WORD = st.sampled_from(
    [
        "schema",
        "payload",
        "op",
        "after",
        "before",
        "fields",
        "field",
        "name",
        "type",
        "items",
        "parameters",
        "scale",
        "id",
        "price",
        "x",
        "y",
    ]
)
HOSTILE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=5), max_leaves=25
)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_hostile_messages_are_refused_and_nothing_worse(key: object, schema: object, payload: object) -> None:
    sources = {
        "s": shop(typed=True),
        "j": msgspec.convert(
            {
                "topic": "u",
                "id": "{id}/{x}",
                "joins": {"c": {"topic": "c", "head": "x.y", "tail": "id", "relation": "r"}},
            },
            SourceMapping,
        ),
    }
    decode = make_decoder(sources, "e", "l")
    for value in (payload, {"schema": schema, "payload": payload}, {"op": "c", "after": payload}):
        for topic in ("t", "u", "c"):
            keys = [None, json.dumps(key).encode(), json.dumps({"schema": schema, "payload": key}).encode()]
            for name in keys:
                with contextlib.suppress(InvalidInput):
                    decode(Message(Cause(topic, 0, 0), name, json.dumps(value).encode(), 0.0))
                with contextlib.suppress(InvalidInput):
                    decode(Message(Cause(topic, 0, 0), name, None, 0.0))
