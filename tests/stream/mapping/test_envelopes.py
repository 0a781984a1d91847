"""Other change streams than Debezium's are read as what they mean, or refused: no delete is an update."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.changes import Edge, JoinChange, RowChange, SnapshotRow
from stream.errors import InvalidInput
from stream.events import Cause, Delete, EntityEvent, Message, Upsert
from stream.mapping.decoder import make_decoder
from stream.mapping.gone import says_gone
from stream.mapping.language import SourceMapping

ROW = {"id": 1, "title": "Alien"}
OTHER = {"id": 2, "title": "Aliens"}
ALIEN, ALIENS = (Upsert("s", str(row["id"]), "entity", {"title": str(row["title"])}) for row in (ROW, OTHER))
GONE = Delete("s", "1")


def decoded(value: object, key: object = None, **mapping: Any) -> Sequence[object]:
    """The changes of one message, rows that are known by their key without it."""
    source = msgspec.convert({"topic": "t", "id": "id", "attributes": ["title"], **mapping}, SourceMapping)
    raw_key = None if key is None else json.dumps(key).encode()
    message = Message(Cause("t", 0, 0), raw_key, json.dumps(value).encode(), 0.0)
    changes = make_decoder({"s": source}, "e", "l")(message)
    return [change.event if isinstance(change, RowChange) else change for change in changes]


def refused(value: object, **mapping: Any) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as caught:
        decoded(value, **mapping)
    return caught.value.reason, str(caught.value)


def maxwell(kind: str, row: object = ROW, **more: object) -> dict[str, object]:
    return {
        "database": "shop",
        "table": "film",
        "type": kind,
        "ts": 1700000001,
        "xid": 1,
        "data": row,
        **more,
    }


def canal(kind: str, *rows: object, **more: object) -> dict[str, object]:
    about = {"database": "shop", "table": "film", "isDdl": False, "es": 1, "ts": 2, "pkNames": ["id"]}
    return {**about, "type": kind, "data": [*rows] or None, "old": None, **more}


def dms(kind: str, row: object = ROW, **more: object) -> dict[str, object]:
    about = {"record-type": "data", "operation": kind, "schema-name": "public", "table-name": "film"}
    return {"data": row, "metadata": about, **more}


def goldengate(kind: str, before: object = None, after: object = None) -> dict[str, object]:
    about = {"table": "SHOP.FILM", "op_type": kind, "op_ts": "2024-01-01 00:00:00", "pos": "1"}
    return {**about, "before": before, "after": after}


MEANT: list[tuple[str, dict[str, object], list[EntityEvent]]] = [
    ("maxwell", maxwell("insert"), [ALIEN]),
    ("maxwell", maxwell("update", old={"title": "Alein"}), [ALIEN]),
    ("maxwell", maxwell("update", OTHER, old={"id": 1}), [GONE, ALIENS]),
    ("maxwell", maxwell("delete"), [GONE]),
    ("maxwell", maxwell("bootstrap-insert"), [ALIEN]),
    ("maxwell", maxwell("bootstrap-start", {}), []),
    ("maxwell", maxwell("table-alter", None), []),
    ("maxwell", {"data": ROW, "type": "delete"}, [GONE]),  # as Flink writes it
    ("canal", canal("INSERT", ROW, OTHER), [ALIEN, ALIENS]),
    (
        "canal",
        canal("UPDATE", ROW, OTHER, old=[{"title": "Alein"}, {"id": "3"}]),
        [ALIEN, Delete("s", "3"), ALIENS],
    ),
    ("canal", canal("DELETE", ROW, OTHER), [GONE, Delete("s", "2")]),
    ("canal", canal("DELETE", ROW, _tidb={"commitTs": 1}), [GONE]),
    ("canal", canal("ALTER", isDdl=True), []),
    ("canal", canal("TIDB_WATERMARK"), []),
    ("canal", {"data": [ROW], "type": "DELETE"}, [GONE]),  # as Flink writes it
    ("dms", dms("load"), [ALIEN]),
    ("dms", dms("insert"), [ALIEN]),
    ("dms", dms("update", OTHER, **{"before-image": {"id": 1}}), [GONE, ALIENS]),
    ("dms", dms("delete", {"id": 1, "title": None}), [GONE]),
    ("dms", {"metadata": {"record-type": "control", "operation": "create-table", "table-name": "film"}}, []),
    ("goldengate", goldengate("I", None, ROW), [ALIEN]),
    ("goldengate", goldengate("U", {"id": 1, "title": "Alein"}, ROW), [ALIEN]),
    ("goldengate", goldengate("U", ROW, OTHER), [GONE, ALIENS]),
    ("goldengate", goldengate("D", {"id": 1}, None), [GONE]),
    ("goldengate", {"table": "FILM", "op_type": "I", "pos": "1", **ROW}, [ALIEN]),
    ("goldengate", {"table": "FILM", "op_type": "D", "pos": "1", **ROW}, [GONE]),
]


@pytest.mark.parametrize("key", [None, {"id": 1}, {"database": "shop", "pk.id": 1}, "public.film.1"])
@pytest.mark.parametrize(("envelope", "event", "meant"), MEANT)
def test_events_are_read_as_what_they_mean(
    envelope: str, event: dict[str, object], meant: list[EntityEvent], key: object
) -> None:
    assert decoded(event, key, envelope=envelope) == meant


@pytest.mark.parametrize(("envelope", "event", "_"), MEANT)
def test_without_the_setting_every_event_is_refused(
    envelope: str, event: dict[str, object], _: object
) -> None:
    for mapping in ({}, {"id": "data.id", "attributes": []}):
        reason, message = refused(event, **mapping)
        assert reason == "other-envelope" and f'set `envelope = "{envelope}"`' in message


def test_rows_of_a_snapshot_are_known_as_such() -> None:
    for envelope, event in (("maxwell", maxwell("bootstrap-insert")), ("dms", dms("load"))):
        source = SourceMapping(topic="t", id="id", envelope=envelope)  # type: ignore[arg-type]
        value = json.dumps(event).encode()
        assert isinstance(
            make_decoder({"s": source}, "e", "l")(Message(Cause("t", 0, 0), None, value, 0)), SnapshotRow
        )


def test_columns_of_which_goldengate_has_no_value_are_missing() -> None:
    after = {"id": 1, "title": None, "title_isMissing": True}
    assert refused(goldengate("U", None, after), envelope="goldengate")[0] == "missing-column"


@pytest.mark.parametrize(
    ("event", "envelope", "said"),
    [
        (
            {"op": "t", "before": None, "after": None, "source": {"db": "d", "schema": "p", "table": "film"}},
            "auto",
            "d.p.film",
        ),
        (
            {"op": "t", "source": {"db": "d", "table": "film"}, "ts_ms": 1},
            "auto",
            "TRUNCATE emptied the table d.film",
        ),
        (
            {"op": "t", "before": None, "after": None},
            "auto",
            "TRUNCATE emptied the table, and its entities stay",
        ),
        (canal("TRUNCATE", isDdl=True), "canal", "TRUNCATE emptied the table film"),
        (canal("ERASE", isDdl=True), "canal", "ERASE emptied the table film"),
        (maxwell("table-drop", None), "maxwell", "table-drop emptied the table film"),
        (
            {"metadata": {"record-type": "control", "operation": "drop-table", "table-name": "film"}},
            "dms",
            "film",
        ),
        (goldengate("T"), "goldengate", "T emptied the table SHOP.FILM"),
    ],
)
def test_a_table_that_was_emptied_is_refused_with_what_to_do(event: object, envelope: str, said: str) -> None:
    reason, message = refused(event, envelope=envelope)
    assert reason == "unsupported-op" and said in message and "send a tombstone for each key" in message


@pytest.mark.parametrize(
    ("event", "envelope"),
    [
        (maxwell("merge"), "maxwell"),
        (maxwell("insert", None), "maxwell"),
        (canal("MERGE", ROW), "canal"),
        (canal("INSERT"), "canal"),
        (canal("INSERT", 7), "canal"),
        (dms("merge"), "dms"),
        ({"metadata": 7}, "dms"),
        (goldengate("X"), "goldengate"),
        (goldengate("U"), "goldengate"),
        (ROW, "maxwell"),
        ({"op": "x", "after": ROW}, "auto"),
    ],
)
def test_what_an_envelope_does_not_have_is_refused(event: object, envelope: str) -> None:
    assert refused(event, envelope=envelope)[0] in ("unsupported-op", "malformed")


@pytest.mark.parametrize(
    "event",
    [
        {
            "op": "m",
            "ts_ms": 2,
            "source": {"table": ""},
            "message": {"prefix": "heartbeat", "content": "aGk="},
        },
        {"op": "m", "before": None, "after": None, "message": {"prefix": "p"}},
        {"resolved": "1706832000000000000.0000000000"},
    ],
)
def test_messages_about_no_row_are_ignored(event: object) -> None:
    assert decoded(event) == []


def test_objects_that_mongodb_writes_as_text_are_said_to_be_such() -> None:
    reason, message = refused({"op": "c", "before": None, "after": json.dumps(ROW)})
    assert reason == "malformed" and "ExtractNewDocumentState" in message


def test_cockroachdb() -> None:
    assert decoded({"after": ROW, "updated": "1706832000000000000.0000000000"}, [1]) == [ALIEN]
    assert decoded({"after": None, "key": [1]}, {"id": 1}) == [GONE]


FLAGGED: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"__deleted": "true"}, {"__deleted": "false"}),
    ({"__op": "d"}, {"__op": "u"}),
    ({"_ab_cdc_deleted_at": "2024-01-02T00:00:00Z"}, {"_ab_cdc_deleted_at": None}),
    ({"_fivetran_deleted": True}, {"_fivetran_deleted": False}),
    ({"_sdc_deleted_at": "2024-01-02 00:00:00"}, {"_sdc_deleted_at": ""}),
    ({"_change_type": "delete"}, {"_change_type": "update_postimage"}),
    ({"METADATA$ACTION": "DELETE"}, {"METADATA$ACTION": "INSERT"}),
    ({"__$operation": 1}, {"__$operation": 4}),
    ({"__$operation": "1"}, {"__$operation": "2"}),
    ({"hvr_op": 0}, {"hvr_op": 1}),
    ({"hvr_op": "0"}, {"hvr_op": "2"}),
    ({"A_ENTTYP": "DL"}, {"A_ENTTYP": "UP"}),
    ({"aud_enttyp": "DL"}, {"aud_enttyp": "PT"}),
    ({"header__change_oper": "D"}, {"header__change_oper": "B"}),
    ({"_deleted": True}, {}),
]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("gone", "here"), FLAGGED)
def test_rows_that_say_by_themselves_that_they_are_gone(
    gone: dict[str, object], here: dict[str, object], wrapped: bool
) -> None:
    for flag, meant in ((gone, GONE), (here, ALIEN)):
        value = {"schema": {}, "payload": ROW | flag} if wrapped else ROW | flag
        assert decoded(value) == decoded(value, {"id": 1}) == [meant]
        assert decoded(value, envelope="none") == [ALIEN]
        assert decoded({"op": "u", "after": ROW | flag}) == [ALIEN]  # a column of the table
    assert decoded({"id": None, "title": None} | gone, {"id": 1}) == [GONE]


@pytest.mark.parametrize(
    ("cell", "gone"),
    [
        *(
            (cell, True)
            for cell in (True, 1, "true", "Y", "D", "DELETE", "-D", 1706832000, "2024-01-02", "1", 0.5)
        ),
        *(
            (cell, False)
            for cell in (False, 0, None, "", " ", "F", "no", "u", "INSERT", "0", float("nan"), "NULL")
        ),
    ],
)
def test_a_column_that_says_which_rows_are_gone(cell: object, gone: bool) -> None:
    assert says_gone(cell, "a", ["NULL"]) is gone
    if cell == cell:
        assert decoded(ROW | {"a": cell}, deleted="a") == [GONE if gone else ALIEN]
        assert decoded({"op": "u", "after": ROW | {"a": cell}}, {"id": 1}, deleted="a") == [
            GONE if gone else ALIEN
        ]


@pytest.mark.parametrize("cell", ["active", [], {}, "2 days ago"])
def test_a_cell_that_does_not_say_whether_the_row_is_gone(cell: object) -> None:
    assert refused(ROW | {"a": cell}, deleted="a")[0] == "bad-value"


def test_the_column_that_says_which_rows_are_gone_has_to_be_there() -> None:
    assert refused(ROW, deleted="a")[0] == "missing-column"
    assert decoded(ROW, deleted="a", optional=["a"]) == [ALIEN]
    path: dict[str, Any] = {"deleted": "meta.op", "id": "data.id", "attributes": {"title": "data.title"}}
    assert decoded({"data": ROW, "meta": {"op": "delete"}}, **path) == [GONE]
    assert decoded({"data": ROW, "meta": {"op": "insert"}}, **path) == [ALIEN]


UNKNOWN: list[dict[str, object]] = [
    {"_id": {"_data": "8"}, "operationType": "delete", "ns": {"db": "d"}, "documentKey": {"_id": 1}},
    {"operationType": "insert", "fullDocument": ROW, "documentKey": {"_id": 1}},
    {"message": {"data": ROW, "headers": {"operation": "DELETE"}}},
    {"type": "DELETE", "schema": "public", "table": "film", "record": None, "old_record": ROW},
    {"type": "INSERT", "schema": "public", "table": "film", "record": ROW, "old_record": None},
    {"event": {"op": "DELETE", "data": {"old": ROW, "new": None}}, "table": {"name": "film"}},
    {"eventName": "REMOVE", "dynamodb": {"Keys": ROW}},
    {"source_metadata": {"change_type": "DELETE"}, "payload": ROW},
    {"_meta": {"op": "d"}, **ROW},
    {"action": "delete", "record": ROW, "changes": None},
    {"specversion": "1.0", "id": "x", "type": "com.shop.film.deleted", "data": ROW},
    {"eventType": "FilmDeleted", **ROW},
    {"Op": "D", **ROW},
    {"ChangeEventHeader": {"changeType": "DELETE", "recordIds": ["1"]}, **ROW},
    {"op": "d", **ROW},
    {"opType": "DEL", **ROW},
    {"version": 1, "type": "DELETE", "data": None, "old": ROW, "commitTs": 1},
    {"row_kind": "-D", **ROW},
    {"type": "D", "data": ROW},
]


@pytest.mark.parametrize("event", UNKNOWN)
def test_what_looks_like_an_unknown_change_event_is_refused(event: dict[str, object]) -> None:
    event = {**event, "id": 1, "title": "Alien"}
    reason, message = refused(event)
    assert reason == "other-envelope" and "`deleted = " in message and '`envelope = "none"`' in message
    assert decoded(event, envelope="none") == [ALIEN]


@pytest.mark.parametrize(
    "row",
    [
        {"type": "film", "kind": "drop", "action": "Drop", "event": "premiere"},
        {"type": "update", "action": "insert", "op": "u", "operation": "create"},
        {"type": "D", "kind": "R", "event": {"type": "insert"}, "metadata": {"source": "x", "type": "D"}},
        {
            "action": ["delete"],
            "op": 7,
            "data": {"type": "delete"},
            "deleted": True,
            "deleted_at": "2024-01-01",
        },
        {"type": None, "event": "The deleted scene", "kind": "deleted scenes"},
    ],
)
def test_rows_that_only_resemble_events(row: dict[str, object]) -> None:
    assert decoded(ROW | row) == [ALIEN]


NAMES = st.sampled_from(
    ["type", "op", "data", "metadata", "operation", "before", "after", "old", "id", "op_type", "isDdl"]
)
CELLS = st.recursive(
    st.none() | st.sampled_from([1, True, "insert", "delete", "D", "U", "INSERT", "table-drop", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(NAMES, CELLS), st.sampled_from(["auto", "none", "maxwell", "canal", "dms", "goldengate"])
)
def test_hostile_events_are_refused_and_nothing_worse(event: dict[str, object], envelope: str) -> None:
    joins = {"j": {"topic": "j", "head": "id", "tail": "data.id", "relation": "r", "envelope": envelope}}
    source = msgspec.convert({"topic": "t", "id": "id", "envelope": envelope, "joins": joins}, SourceMapping)
    decode = make_decoder({"s": source}, "e", "l")
    for topic in ("t", "j"):
        for key in (None, b'{"id": 1}'):
            try:
                decode(Message(Cause(topic, 0, 0), key, json.dumps(event).encode(), 0.0))
            except InvalidInput as error:
                assert error.reason and len(str(error)) < 1000


@pytest.mark.parametrize("key", [None, b'{"h": 1}'])
def test_rows_of_joins_in_envelopes(key: bytes | None) -> None:
    """They are known by what they say, where the envelope says what they said before."""
    join = {"topic": "j", "head": "h", "tail": "t", "relation": "by", "envelope": "maxwell"}
    source = msgspec.convert({"id": "id", "joins": {"j": join}}, SourceMapping)
    decode = make_decoder({"s": source}, "e", "l")

    def read(event: object) -> list[tuple[bytes, Edge | None]]:
        changes = decode(Message(Cause("j", 0, 0), key, json.dumps(event).encode(), 0.0))
        return [(change.row, change.edge) for change in changes if isinstance(change, JoinChange)]

    one, other = {"h": 1, "t": 2}, {"h": 1, "t": 3}
    ((name, edge),) = read(maxwell("insert", one))
    assert edge == Edge("s", "1", "by", "2")
    ((gone, none), (new, moved)) = read(maxwell("update", other, old={"t": 2}))
    assert (gone, none) == (name, None) and moved == Edge("s", "1", "by", "3")
    assert read(maxwell("delete", other)) == [(new, None)]
