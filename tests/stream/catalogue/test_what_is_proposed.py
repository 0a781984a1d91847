"""Whatever files hold, what is proposed for them can be fed as it is; and what refers to what is found."""

import csv
import io
import json
import re
import struct
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.catalogue.account import Account
from stream.catalogue.proposing import Proposal, propose
from stream.catalogue.reading import read_files
from stream.config import load_settings
from stream.errors import ConfigError
from stream.events import Upsert
from tests.stream.catalogue.test_rows import compressed

WORDS = st.sampled_from(
    ["", "a", "b", "A;B", "B;C;A", "1", "12.0", "1,5", "NULL", "-", "Ridley Scott", "x" * 1100]
)
SCALARS = WORDS | st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_infinity=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "id", "b.c"]), inner)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["id", "name", "maker", "maker.name", "a/b", "a_name", "~of", "{x}", "", "kind", "x.id"]
)
ROWS = st.lists(st.dictionaries(KEYS, VALUES, max_size=6), min_size=1, max_size=8)


def fed(found: Proposal) -> tuple[dict[str, dict[str, Upsert]], list[str]]:
    """By source the entities that a feed with what is proposed makes; and what it refuses."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sameas.toml"
        path.write_text(found.toml, encoding="utf-8")
        configuration = load_settings(path, {})
    entities: dict[str, dict[str, Upsert]] = {}
    refused = []
    for source in configuration.sources:
        entities[source] = {}
        for event in read_files(configuration, [], source, Account()):
            if isinstance(event, Upsert):
                assert event.id not in entities[source], f"two rows became one entity, {event.id}"
                entities[source][event.id] = event
            else:
                refused.append(str(event))
    return entities, refused


@given(ROWS, st.booleans())
@example([{"kind": {"name": "a"}}, {"kind": [{}, "-"]}], True)
@example([{"~of": name, "{a": name, "a/b": name} for name in "XXXYYYZZZ"], True)
def test_nothing_is_proposed_that_feed_refuses(rows: list[dict[str, Any]], is_numbered: bool) -> None:
    if is_numbered:
        rows = [{"nr": number, **row} for number, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        try:
            found = propose([path], "s")
        except ConfigError as error:
            assert "no column could be the id" in str(error)
            return
        if any("id: A GUESS" in line for line in found.seen):
            assert not is_numbered
        else:
            assert fed(found)[1] == [], found.toml


PEOPLE = ["id,name", *(f"{n},{name}" for n, name in enumerate(["Anna", "Boris", "Clara", "David"], 1))]
CAST = [f"{n},{1 + n * k % 4},{('actor', 'writer')[k % 2]}" for n in range(1, 31) for k in (1, 2)]
MOVIES = [f"{n},Film {n % 17} {n % 11},{1 + n % 4}.0" for n in range(1, 31)]
FILMS = {
    "movies.csv": ["id,title,director_id", *MOVIES],
    "people.csv": PEOPLE,
    "cast.csv": ["movie_id,person_id,role", *CAST],
}
# the codes are not called so, and the names differ as well
AIRPORTS = {
    "airports.csv": [
        "ident,name,iso_country",
        *(f"X{n},Field {n},{('DE', 'FR', 'US')[n % 3]}" for n in range(20)),
    ],
    "countries.csv": ["name,code", "Germany,DE", "France,FR", "United States,US"],
}
TITLES = {
    "title.ratings.tsv": ["tconst\tvotes", *(f"tt{n:04}\t{n * 7}" for n in range(20))],
    "title.basics.tsv": ["tconst\tprimaryTitle", *(f'tt{n:04}\tThe "{n}" story' for n in range(20))],
    "name.basics.tsv": ["nconst\tname\tknownFor", *(f"nm{n}\tP {n}\ttt{n:04},tt000{n}" for n in range(9))],
    "title.principals.tsv": [
        "tconst\tnconst\tordering",
        *(f"tt{n:04}\tnm{n % 9}\t{n % 2}" for n in range(20)),
    ],
}
SHOPS = {
    "alpha.csv": ["row,name,kind", *(f"{n},Lamp {n},{('a', 'b')[n % 2]}" for n in range(20))],
    "beta.jsonl": [json.dumps({"row": n, "name": f"Lamp {n + 5}", "price": n / 4}) for n in range(20)],
}
TREE = {
    "subjects.csv": ["id,name,parent_id", *(f"{n},S {n},{n // 2}.0" for n in range(1, 20))],
    "books_1.csv": ["isbn,subject_ids", *(f"978{n:04},{n % 19 + 1};{n % 7 + 1}" for n in range(20))],
}
TRIPLES = {
    "people.csv": PEOPLE,
    "knows.tsv": ["head\trelation\ttail", *(f"{n}\tknows\t{n % 4 + 1}" for n in range(1, 5))],
}


def write(directory: Path, files: dict[str, list[str]]) -> list[Path]:
    for name, lines in files.items():
        (directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [directory / name for name in files]


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            FILMS,
            {
                "movies.id": "movie/{id}",
                "movies.director": {"column": "director_id", "id": "person/{director_id}"},
                "people.id": "person/{id}",
                "cast": ("movie/{movie_id}", "role", "person/{person_id}"),
            },
        ),
        (
            AIRPORTS,
            {
                "airports.id": "ident",
                "airports.iso_country": {"column": "iso_country"},
                "countries.id": "code",
            },
        ),
        (
            TITLES,
            {
                "title_ratings.id": "title_rating/{tconst}",
                "title_ratings.tconst": {"column": "tconst"},
                "title_basics.id": "tconst",
                "name_basics.id": "nconst",
                "name_basics.knownFor": {"column": "knownFor", "separator": ","},
                "title_principals": ("tconst", "principal", "nconst"),
            },
        ),
        (
            TREE,
            {
                "subjects.id": "id",
                "subjects.parent": {"column": "parent_id"},
                "books_1.id": "isbn",
                "books_1.subject": {"column": "subject_ids", "separator": ";"},
            },
        ),
        (TRIPLES, {".id": "id", "knows": ("head", "relation", "tail")}),
    ],
    ids=["films", "airports", "titles", "tree", "triples"],
)
def test_tables_and_joins(
    tmp_path: Path, files: dict[str, list[str]], expected: dict[str, Any], is_turned: bool
) -> None:
    paths = write(tmp_path, files)
    found = propose(paths[::-1] if is_turned else paths)
    (name, source) = (*tomllib.loads(found.toml)["sources"].items(),)[0]
    assert name == tmp_path.name
    tables = source.get("tables", {"": source})
    assert {f"{table}.id": mapping["id"] for table, mapping in tables.items()} | {
        f"{table}.{relation}": how
        for table, mapping in tables.items()
        for relation, how in mapping.get("relations", {}).items()
    } | {
        join: (how["head"], how.get("relation") or how["relation_column"], how["tail"])
        for join, how in source.get("joins", {}).items()
    } == expected
    entities, refused = fed(found)
    (here,) = entities.values()
    assert refused == []
    rows = sum(
        len(lines) - 1 for file, lines in files.items() if not {file[:-4], file} & {"cast", "knows.tsv"}
    )
    assert len(here) == rows - (20 if files is TITLES else 0)
    targets = {target for entity in here.values() for some in entity.relations.values() for target in some}
    assert targets <= here.keys() | {"0"} and len(targets) > 2


def test_catalogues_that_share_names_are_sources_of_their_own(tmp_path: Path) -> None:
    found = propose(write(tmp_path, SHOPS))
    sources = tomllib.loads(found.toml)["sources"]
    assert {name: (table["id"], table["type"]) for name, table in sources.items()} == {
        "alpha": ("row", "entity"),
        "beta": ("row", "entity"),
    }
    assert any("A GUESS: that the other sources hold the same kind of things" in line for line in found.seen)
    assert any("2 sources, since none refers to another" in line for line in found.seen)
    entities, refused = fed(found)
    assert refused == [] and {name: len(each) for name, each in entities.items()} == {"alpha": 20, "beta": 20}
    with_another = propose(write(tmp_path, {**FILMS, "rooms.csv": ["room,size", "A1,30", "B2,40"]}))
    assert tomllib.loads(with_another.toml)["sources"]["rooms"]["type"] == "room"
    assert not any("the same kind of things" in line for line in with_another.seen)
    together = tomllib.loads(propose(write(tmp_path, SHOPS), "shop").toml)["sources"]
    assert together["shop"]["tables"].keys() == {"alpha", "beta"}


def test_files_of_two_folders_are_sources_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [path for folder in ("a", "b") for path in write(tmp_path / folder, FILMS)]
    sources = tomllib.loads(propose(paths).toml)["sources"]
    assert sources.keys() == {"a", "b"} and all(
        source["joins"].keys() == {"cast"} for source in sources.values()
    )


def test_files_of_one_name_are_all_proposed(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        paths += write(tmp_path / folder, {"films.csv": ["id,name", f"{folder}1,A", f"{folder}2,B"]})
    assert tomllib.loads(propose([*paths, paths[0]]).toml)["sources"].keys() == {
        "films",
        "films_2",
        "films_3",
    }
    found = propose(paths, "s")
    assert tomllib.loads(found.toml)["sources"]["s"]["tables"].keys() == {"films", "films_2", "films_3"}
    assert len(fed(found)[0]["s"]) == 6


@pytest.mark.parametrize(("name", "source"), [("my films.csv", "my_films"), ("films.v2.csv.gz", "films")])
def test_a_source_has_a_name_that_ids_can_begin_with(tmp_path: Path, name: str, source: str) -> None:
    path = compressed(tmp_path / name, b"id,name\n1,a\n2,b\n")
    entities, refused = fed(propose([path]))
    assert refused == [] and entities.keys() == {source} and entities[source].keys() == {"1", "2"}
    with pytest.raises(ConfigError, match=r"--source my films: 1 to 64 letters"):
        propose([path], "my films")


def test_what_is_no_value_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "films.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": n, "maker": {"name": "Fox"}, "a": {"b": {"c": {"d": {"e": 1}}}}} for n in range(9)
    ]
    rows[3]["maker"] = "Fox"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = propose([path])
    assert tomllib.loads(found.toml)["sources"]["films"].keys() == {"file", "id", "type", "attributes"}
    for column, cells in (("maker", 8), ("maker.name", 1), ("a.b.c.d", 9)):
        assert f"{column}: left out: {cells} cells are no texts, numbers or lists of them" in found.seen
    assert len(fed(found)[0]["films"]) == 9


def test_columns_that_end_alike_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "films.jsonl"
    rows = [{"id": n, "a": {"size": n}, "b": {"size": -n}, "size": 0} for n in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert fed(propose([path]))[0]["films"]["3"].attributes == {"size": 3, "b.size": -3, "size_": 0}


KEY = st.sampled_from(["{n}", "x{n}", "{stem}-{n}"])


@st.composite
def catalogues(draw: st.DrawFn) -> dict[str, list[str]]:
    """Tables with ids of some form, of which some refer to others, and joins of two of them."""
    stems = draw(
        st.lists(st.sampled_from(["film", "people", "studio", "city"]), min_size=1, max_size=4, unique=True)
    )
    ids = {}
    for stem in stems:
        form, count = draw(KEY), draw(st.integers(2, 9))
        ids[stem] = [form.format(n=n, stem=stem) for n in range(1, count + 1)]
    files = {}
    for stem in stems:
        refers = draw(st.lists(st.sampled_from(stems), max_size=2, unique=True))
        names = [f"{draw(st.sampled_from(['', 'main_', 'old ']))}{other}_id" for other in refers]
        lines = [",".join(["id", "name", *names])]
        for number, own in enumerate(ids[stem]):
            cells = [draw(st.sampled_from([*ids[other], ""])) for other in refers]
            lines.append(",".join([own, f"{stem} no. {number}", *cells]))
        files[f"{stem}.csv"] = lines
    for number in range(draw(st.integers(0, 1 if len(stems) > 1 else 0))):
        one, other = draw(st.permutations(stems))[:2]
        pairs = draw(
            st.lists(
                st.tuples(st.sampled_from(ids[one]), st.sampled_from(ids[other])), min_size=3, unique=True
            )
        )
        files[f"j{number}.csv"] = [f"{one}_id,{other}_id", *map(",".join, pairs)]
    return files


@given(catalogues(), st.booleans())
@example(
    {
        "film.csv": ["id,main_people_id", *(f"{n},{1 + 2 * (n == 7)}" for n in range(1, 8))],
        "people.csv": PEOPLE,
        "studio.csv": ["id,main_people_id", "1,1", "2,2"],
    },
    False,
)
def test_several_files_can_be_fed_as_proposed(files: dict[str, list[str]], is_named: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = propose(write(Path(directory), files), "s" if is_named else None)
        entities, refused = fed(found)
    assert refused == [], found.toml
    tables = tomllib.loads(found.toml)["sources"]
    joins = {join for source in tables.values() for join in source.get("joins", {})}
    rows = sum(len(lines) - 1 for name, lines in files.items() if name.removesuffix(".csv") not in joins)
    assert sum(map(len, entities.values())) >= rows  # and no two became one
    if not any("ids of another table" in line for line in found.seen):
        for here in entities.values():
            for entity in here.values():
                assert {target for some in entity.relations.values() for target in some} <= here.keys()


def test_no_row_is_gone_by_a_column_without_a_name(tmp_path: Path) -> None:
    """pandas writes its index so."""
    path = tmp_path / "films.csv"
    path.write_text(",id,name\n0,f0,Alien\n1,f1,Brazil\n2,f2,Heat\n")
    found = propose([path])
    assert "3 rows, 3 columns" in found.seen
    assert len(fed(found)[0]["films"]) == 3


def test_positions_are_usable(tmp_path: Path) -> None:
    path = tmp_path / "places.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": n, "geo": {"point": [[100.5 + n, 13.7]]}, "pos": [100.0 + n, 3], "loc": f"{n}.5, 101"}
        for n in range(40)
    ]
    rows[3]["loc"] = "somewhere"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = propose([path])
    assert "loc: left out: 1 cells are no positions (lat-lon)" in found.seen
    entities, refused = fed(found)
    assert refused == []
    assert entities["places"]["3"].attributes == {"point": ["POINT(103.5 13.7)"], "pos": "POINT(103.0 3)"}


def source_of(found: Proposal) -> dict[str, Any]:
    (source,) = tomllib.loads(found.toml)["sources"].values()
    assert isinstance(source, dict)
    return source


PARTS = {
    f"part-0000{part}.csv": ["id,title", *(f"f{n},Film {n}" for n in range(10 * part, 10 * part + 10))]
    for part in range(2)
}


def test_parts_of_a_table_are_one(tmp_path: Path) -> None:
    paths = write(tmp_path, PARTS)
    found = propose(paths)
    assert source_of(found)["file"] == [str(path) for path in paths] and source_of(found)["id"] == "id"
    assert any("A GUESS: one table with part-00001.csv" in line for line in found.seen)
    assert len(fed(found)[0]["part"]) == 20
    other = [line.replace("Film", "Lamp") for line in PARTS["part-00000.csv"]]
    write(tmp_path, {"part-00001.csv": other})  # two catalogues with the same ids
    assert len(tomllib.loads(propose(paths).toml)["sources"]) == 2


def test_rdf_files_with_common_subjects_are_one_table(tmp_path: Path) -> None:
    subjects = [f"<http://d/r/f{n}>" for n in range(4)]
    files = {
        "labels.nt": [f'{subject} <http://p/label> "Film"@en .' for subject in subjects],
        "props.nt": [f"{subject} <http://p/starring> <http://d/r/p> ." for subject in subjects],
        "others.nt": ['<http://e/1> <http://p/label> "Film" .', '<http://e/2> <http://p/label> "Lamp" .'],
    }
    found = propose(write(tmp_path, files))
    (entities, _), refused = fed(found)[0].values(), fed(found)[1]
    assert refused == [] and len(entities) == 4
    assert entities["http://d/r/f3"].attributes == {"label": ["Film"]}
    assert entities["http://d/r/f3"].relations == {"starring": ["http://d/r/p"]}


PAIRS = [(actor, film) for actor in range(1, 9) for film in (actor, actor + 3)]


@pytest.mark.parametrize("extra", [{}, {"last_update": 1_700_000_000_000_000}, {"ordering": 1}])
def test_a_join_alone_is_no_entity(tmp_path: Path, extra: dict[str, int]) -> None:
    path = tmp_path / "film_actor.jsonl"
    about = {"schema": "public", "table": "film_actor", "name": "shop"}
    rows = [{"actor_id": actor, "film_id": film, **extra} for actor, film in PAIRS]
    events = [{"op": "c", "before": None, "after": row, "source": about} for row in rows]
    path.write_text("\n".join(map(json.dumps, events)))
    found = propose([path], "shop")
    assert source_of(found) == {
        "joins": {
            "film_actor": {
                "topic": "shop.public.film_actor",
                "head": "actor_id",
                "tail": "film_id",
                "relation": "film",
            }
        }
    }
    assert any("it goes with the tables of its source" in line for line in found.seen)
    assert sum("A GUESS: ids of a table that is not here" in line for line in found.seen) == 2


@pytest.mark.parametrize(
    "lines",
    [
        ["id,customer_id,shop_id", *(f"{n},{n % 4},{n % 3}" for n in range(12))],  # an order
        ["customer_id,shop_id,review", *(f"{n},{n % 3},It is number {n}" for n in range(12))],
    ],
)
def test_an_entity_with_two_references_is_no_join(tmp_path: Path, lines: list[str]) -> None:
    assert "joins" not in source_of(propose(write(tmp_path, {"orders.csv": lines})))


def test_a_join_of_other_tables_is_left_out(tmp_path: Path) -> None:
    joins = {"film_actor.csv": ["actor_id,film_id", *(f"{a},{f}" for a, f in PAIRS)]}
    found = propose(write(tmp_path, {**SHOPS, **joins}))
    assert tomllib.loads(found.toml)["sources"].keys() == {"alpha", "beta"}
    assert any(line.startswith("film_actor.csv: left out: it only says") for line in found.seen)
    films = {"film.csv": ["film_id,title", *(f"{n},Film {n}" for n in range(1, 13))]}
    join = source_of(propose(write(tmp_path, {**films, **joins})))["joins"]["film_actor"]
    assert (join["head"], join["tail"]) == ("film_id", "actor_id")


def test_numbers_point_at_nothing_that_they_do_not_mean(tmp_path: Path) -> None:
    files = {
        "film.csv": ["id,title,language_id", *(f"{n},Film {n},{n % 3 + 1}" for n in range(1, 40))],
        "actor.csv": ["actor_id,first_name", *(f"{n},A {n % 3}" for n in range(1, 30))],
        "category.csv": ["id,name,parent_id", *(f"{n},C {n},{1 + n // 9}" for n in range(1, 30))],
    }
    tables = source_of(propose(write(tmp_path, files), "s"))["tables"]
    language = {"column": "language_id", "id": "language/{language_id}"}
    assert tables["film"]["relations"] == {"language": language}
    assert tables["actor"] == {
        "file": str(tmp_path / "actor.csv"),
        "id": "actor/{actor_id}",
        "type": "actor",
        "attributes": ["first_name"],
    }
    assert tables["category"]["relations"] == {
        "parent": {"column": "parent_id", "id": "category/{parent_id}"}
    }


def test_another_code_of_the_same_things_is_no_reference(tmp_path: Path) -> None:
    codes = [("DE", "GM"), ("FR", "FR"), ("IT", "IT"), ("US", "US")]
    lines = ["iso,fips,country", *(f"{iso},{fips},Country {iso}" for iso, fips in codes)]
    assert "relations" not in source_of(propose(write(tmp_path, {"countries.csv": lines})))


@pytest.mark.parametrize("names", ["lat;lon", "geo_x;geo_y"])
def test_a_number_with_a_decimal_comma_is_no_position(tmp_path: Path, names: str) -> None:
    """`41,9` was 41 degrees north and 9 east."""
    lines = [f"id;name;{names}", "1;Roma;41,9;12,5", "2;Paris;48,85;2,35", "3;Oslo;59,9;10,7"]
    found = propose(write(tmp_path, {"places.csv": lines}))
    assert "columns" not in source_of(found)
    north, east = names.split(";")
    assert fed(found)[0]["places"]["1"].attributes == {"name": "Roma", north: 41.9, east: 12.5}


def test_a_column_of_one_half_of_a_position_is_none(tmp_path: Path) -> None:
    lines = ["id,lat,lon", *(f'{n},"5{n},1","1{n},2"' for n in range(9))]
    assert "columns" not in source_of(propose(write(tmp_path, {"places.csv": lines})))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.jsonl",
            '[\n {"id": 1},\n {"id": 2}\n]\n',
            r"3 are refused, the first is a.jsonl:1: .*`jq -c '.\[\]'`",
        ),
        ("a.jsonl", '[{"id": 1}, {"id": 2}]', r"1 are refused, the first is a.jsonl:1: .* no array"),
        ("a.ndjson", '{\n "id": 1\n}\n{\n "id": 2\n}\n', "the first is a.ndjson:1: .*`jq -c .` writes"),
        ("a.jsonl", '{"type": "FeatureCollection", "features": [{"id": 1}]}', r"`jq -c '.features\[\]'`"),
        (
            "a.csv",
            "id,name\n1,A,\n2,B,\n",
            "no rows .*: 2 are refused, the first is a.csv:2: 3 cells under 2",
        ),
        (
            "a.csv",
            "# of 2024\n#\nid,name\n1,A\n",
            "1 rows can be read: 2 are refused, .*first line the header",
        ),
        ("a.json", "[]", r"unknown suffix; .*`jq -c '.\[\]'"),
        ("a.xlsx", "", "save the sheet as CSV"),
    ],
)
def test_what_is_no_table_says_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path / name))}.*{said}"):
        propose([tmp_path / name])


def test_what_looks_like_no_header_and_what_is_refused_are_said(tmp_path: Path) -> None:
    lines = ["1,Alien,1979", "2,Aliens,1986", "# later ones", "3,Heat,1995"]
    seen = propose(write(tmp_path, {"films.csv": lines})).seen
    assert "the header: A GUESS, since 1, 1979 looks like a cell; if it is a row, add a header" in seen
    assert "refused, by feed as well: 1, the first films.csv:3: 1 cells under 3 columns" in seen


def test_a_name_that_is_the_id_is_an_attribute_too(tmp_path: Path) -> None:
    found = source_of(propose(write(tmp_path, {"cities.csv": ["name,size", "Rome,3", "Oslo,1"]})))
    assert (found["id"], found["attributes"]) == ("name", ["name", "size"])


def test_geometries_of_postgis_and_geoparquet_are_positions(tmp_path: Path) -> None:
    points = [struct.pack("<BIdd", 1, 1, 13.4 + n, 52.5) for n in range(5)]
    lines = ["id,geom", *(f"{n},{point.hex().upper()}" for n, point in enumerate(points)), "9,"]
    names = ["1", "2", "3", "4", "5"]
    parquet.write_table(arrow.table({"id": names, "geometry": points}), tmp_path / "b.parquet")
    table = write(tmp_path, {"a.csv": lines})[0]
    for path, column in ((table, "geom"), (tmp_path / "b.parquet", "geometry")):
        found = propose([path], "s")
        assert source_of(found)["columns"] == {column: "wkb"}
        entities, refused = fed(found)
        point = "POINT(15.4 52.5)" if path is table else "POINT(14.4 52.5)"
        assert refused == [] and entities["s"]["2"].attributes[column] == point


def test_messages_of_several_tables_are_told(tmp_path: Path) -> None:
    events = [
        {"op": "c", "after": {"id": n, "name": f"{table} {n}"}, "source": {"db": "shop", "table": table}}
        for n in range(4)
        for table in ("film", "person")
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, events)))
    (said,) = (line for line in propose([tmp_path / "all.jsonl"], "s").seen if "tables" in line)
    assert "A GUESS, since they are of 2 tables, shop.film (4), shop.person (4)" in said


def test_json_in_cells_is_decoded(tmp_path: Path) -> None:
    makers = [{"name": f"Maker {n % 3}", "at": f"20{n:02}-01-01"} for n in range(12)]
    rows = [
        {
            "id": n,
            "tags": json.dumps([n, n + 100]) if n != 5 else "",
            "maker": json.dumps(makers[n]) if n != 6 else "NULL",
            "empty": "[]",
            "pos": "[52.5, 13.4]",
            "area": json.dumps({"type": "Point", "coordinates": [13.4, 52.5]}),
            "plot": f"[{n}] It begins" if n else '["x"]',
        }
        for n in range(12)
    ]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / "a.csv").write_text(lines.getvalue())
    found = propose([tmp_path / "a.csv"], "s")
    assert "maker: its texts are JSON" in found.seen
    table = source_of(found)
    assert {"tags": "json", "maker": "json"}.items() <= table["columns"].items()
    assert not {"empty", "plot"} & table["columns"].keys() and table["columns"].get("pos") == "lat-lon"
    assert table["relations"]["maker"] == {"column": "maker.name", "type": "maker"}
    entities, refused = fed(found)
    assert refused == []
    one = entities["s"]["4"]
    assert one.attributes["tags"] == [4, 104] and one.attributes["at"] == "2004-01-01"
    assert one.relations == {"maker": ["maker/Maker 1"]}
