"""Known links tell right pairs from wrong ones, and from those of which nothing is known."""

from pathlib import Path

import pytest

from index.errors import SameasError
from stream.learning.known_links import KnownLinks, read_links


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("imdb:1", "tmdb:a"), True),
        (("tmdb:a", "imdb:1"), True),
        (("imdb:1", "tmdb:b"), False),
        (("tmdb:b", "imdb:1"), False),
        (("imdb:2", "tmdb:a"), None),  # `tmdb:a` is the right entity of its link: another may be linked to it
        (("imdb:1", "wikidata:Q1"), None),
    ],
)
def test_a_pair_is_judged_in_both_directions(pair: tuple[str, str], expected: bool | None) -> None:
    assert KnownLinks([("imdb:1", "tmdb:a")]).judge(*pair) is expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("links.csv", 'left,right\n a:1,b:1 \n\n"a:x, y",b:2\n'),
        ("links.csv", '\ufeffright,note,left\nb:1,,a:1\nb:2,x,"a:x, y"\n'),
        ("links.csv", "left;right\na:1;b:1\na:x, y;b:2\n"),
        ("links.tsv", "left\tright\na:1\tb:1 \na:x, y\tb:2\n"),
        ("links.jsonl", '{"left": "a:1", "right": "b:1"}\n{"right": "b:2", "left": "a:x, y"}\n'),
    ],
)
def test_links_are_read_as_any_table(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = read_links(path)
    assert found.links == [("a:1", "b:1"), ("a:x, y", "b:2")]
    assert found.path == path and found.lines == sorted(found.lines) and found.lines[0] in (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('left,right\na:1,"b:1\na:2,b:2\n', "links.csv:2: a quote is left open"),
        ("left,right\na:1,b:1,c:1\n", "links.csv:2: 3 cells under 2 columns"),
        ("left,right\na:1,b:1\na1,b:1\n", "links.csv:3: 'a1' is not of the form source:id"),
        ("left,right\na:1,a:2\n", "links.csv:2: a:1 and a:2 are of one source"),
        ("left,right\na:1,\n", "links.csv:2: '' is not of the form source:id"),
        ("one,two\na:1,b:1\n", "links.csv: no column 'left', 'right'; there are 'one', 'two'"),
    ],
)
def test_what_is_wrong_with_links_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "links.csv").write_text(text)
    with pytest.raises(SameasError, match=message):
        read_links(tmp_path / "links.csv")
