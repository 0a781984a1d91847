"""What a line, a row of several lines, a token or a subject may take is bounded."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as arrow
import pytest

from stream.catalogue import rdf
from stream.catalogue.opening import MAX_LINE
from stream.catalogue.proposing import propose
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput
from tests.stream.workers import ROOT

LONG = b"x" * (60 * MAX_LINE)
MOST_MB = 40  # less than the line itself, which would be held several times
AROUND = {  # a good row, the beginning of a long one; its end, and another good row
    ".csv": (b"id,title\n1,a\n2,", b"\n3,c\n"),
    ".tsv": (b"id\ttitle\n1\ta\n2\t", b"\n3\tc\n"),
    ".jsonl": (b'{"id":"1"}\n{"id":"', b'"}\n{"id":"3"}\n'),
    ".nt": (b'<x:1> <p:n> "a" .\n<x:2> <p:n> "', b'" .\n<x:3> <p:n> "a" .\n'),
    ".ttl": (b'<x:1> <p:n> "a" .\n<x:2> <p:n> "', b'" .\n<x:3> <p:n> "a" .\n'),
}
READ = """
import json, resource, sys
from pathlib import Path
import pyarrow, pyoxigraph
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for name in sys.argv[1:]:
    before, found = peak(), []
    try:
        found += [row.reason if isinstance(row, InvalidInput) else "row" for _, row in read_rows(Path(name))]
    except ConfigError as error:
        found.append(str(error))
    print(json.dumps([name, sorted(found), peak() - before]))
"""


def test_a_line_of_sixty_megabytes_is_never_held(tmp_path: Path) -> None:
    paths = []
    for suffix, (begin, end) in AROUND.items():
        paths.append(tmp_path / f"a{suffix}.gz")
        paths[-1].write_bytes(gzip.compress(begin + LONG + end, compresslevel=1))
    zst = tmp_path / "a.csv.zst"
    zst.write_bytes(arrow.compress(LONG.join(AROUND[".csv"]), codec="zstd", asbytes=True))
    command: list[str | Path] = [sys.executable, "-c", READ, *paths, zst]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 6
    for name, found, megabytes in told:
        assert megabytes < MOST_MB, name
        if ".ttl" in name:  # its parser cannot go on behind an error
            assert found == [f"{name} cannot be read: a text or an IRI is longer than 16 MiB"]
        else:
            assert found == ["row", "row", "too-large"], name


def read(path: Path, content: str) -> list[tuple[int, str]]:
    """Lines, and the ids of their rows or the reasons of their refusal."""
    path.write_text(content, encoding="utf-8")
    return [
        (line, row.reason if isinstance(row, InvalidInput) else str(row.get("id", row.get("@id"))))
        for line, row in read_rows(path)
    ]


def test_a_row_of_many_lines_is_as_long_as_a_line_may_be(tmp_path: Path) -> None:
    """Each cell is short enough, and all quotes are closed."""
    cells = ",".join(['"x\ny"'] * (MAX_LINE // 4))
    found = read(tmp_path / "a.csv", f"id,title\n1,a\n2,{cells}\n3,c\n")
    assert found[0] == (2, "1") and found[-1][1] == "3"
    assert (3, "too-large") in found and {what for _, what in found[1:-1]} <= {"too-large", "malformed"}


def test_a_long_line_behind_an_open_quote_is_refused_by_itself(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", f'id,title\n1,"a\n2,{"x" * MAX_LINE}\n3,c\n')
    assert found == [(2, "too-large"), (3, "too-large"), (4, "3")]


def test_a_header_may_be_no_longer_either(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="the header cannot be read: it is longer than 1,000,000 characters"
    ):
        read(tmp_path / "a.csv", f"id,{'x' * MAX_LINE}\n1,a\n")
    with pytest.raises(ConfigError, match="longer than 1,000,000 characters"):
        propose([tmp_path / "a.csv"], "s")


def test_a_subject_of_a_million_values_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    values = ", ".join(f'"{"x" * 100_000}{n}"' for n in range(11))
    content = f'<x:1> <p:n> "a" . <x:2> <p:n> {values} . <x:3> <p:n> "c" .'
    assert read(tmp_path / "a.ttl", content) == [(0, "x:1"), (0, "too-large"), (0, "x:3")]
    again = '<x:1> <p:n> "' + "x" * 100_000 + '" .\n'  # which adds nothing
    assert read(tmp_path / "a.nt", again * 20) == [(1, "x:1")]


@pytest.mark.parametrize("depth", [64, 65, 100_000])
def test_triple_terms_are_nested_no_deeper_than_the_parser_survives(tmp_path: Path, depth: int) -> None:
    term = "<<( <x:1> <p:n> " * depth + "<x:9>" + " )>>" * depth
    good = '<x:3> <p:n> "c" .\n'
    lines = f"<x:1> <p:n> {term} .\n{good}"
    is_refused = depth > 64
    refused = "too-large" if len(lines) > MAX_LINE else "too-deep"
    assert read(tmp_path / "a.nt", lines) == [(1, refused if is_refused else "x:1"), (2, "x:3")]
    if is_refused:
        with pytest.raises(ConfigError, match="triple terms are nested deeper than 64"):
            read(tmp_path / "a.ttl", lines)
    else:
        assert read(tmp_path / "a.ttl", lines) == [(0, "x:1"), (0, "x:3")]


def test_the_names_of_predicates_count_among_what_a_subject_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none that is long is remembered: 200 lines in 800 kB of gzip took 345 MB."""
    monkeypatch.setattr(rdf, "MAX_LINE", 20_000)
    path, before = tmp_path / "a.nt", rdf._column_names.cache_info().currsize
    long = "p" * rdf.LONG_PREDICATE
    path.write_text("".join(f'<x:1> <http://x/{n}/{long}> "v" .\n<x:2> <x:n> "{n}" .\n' for n in range(30)))
    (_, refused), (_, row) = read_rows(path)
    assert isinstance(refused, InvalidInput) and refused.reason == "too-large"
    assert not isinstance(row, InvalidInput) and isinstance(row["x:n"], list) and len(row["x:n"]) == 30
    assert rdf._column_names.cache_info().currsize <= before + 1


@pytest.mark.parametrize("line", ['_:b{n} <x:p> "v" .', "<x:{n}> <x:p> _:b{n} .", "_:a <x:p{n}> _:a ."])
@pytest.mark.parametrize("suffix", [".nt", ".ttl"])
def test_what_blank_nodes_say_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, suffix: str
) -> None:
    monkeypatch.setattr(rdf, "MAX_BLANK_BYTES", 20_000)
    path = tmp_path / f"a{suffix}"
    path.write_text("".join(line.format(n=n) + "\n" for n in range(100)))
    place = re.escape(str(path)) + (r":\d+" if suffix == ".nt" else "")
    with pytest.raises(ConfigError, match=f"^{place}: what its blank nodes say takes more than.*IRIs"):
        list(read_rows(path))
    path.write_text((line.format(n=1) + "\n") * 1_000)  # said again and again
    assert len(list(read_rows(path))) == 1
