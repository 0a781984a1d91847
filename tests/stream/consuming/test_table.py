"""The table of alignments: as wide as the terminal, whatever the values are."""

import pytest

from stream.console import fitted, width
from stream.consuming.table import header, row, withdrawn_row
from stream.events import AlignmentRecord, AttributeEvidence, Evidence, NeighbourEvidence
from tests.stream.records import aligned_pair


def record(subject_id: str, object_id: str) -> AlignmentRecord:
    evidence = Evidence(
        [AttributeEvidence("name", "Tannhäuser", "title", "唐怀瑟", 0.7)],
        [NeighbourEvidence("by", "a:person/Wagner", "by", "b:person/W", 0.3)],
    )
    return aligned_pair(subject_id, object_id, evidence=evidence)


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_lines_are_as_wide_as_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [
        header(),
        row("aligned", record("imdb:tt0133093", "wiki:唐怀瑟")),
        row("same", record("imdb:tt1", "wiki:2")),
        withdrawn_row("imdb:tt0133093", "wiki:2"),
    ]
    assert all(width(line) <= columns for line in lines)
    at = [
        width(line[: line.index(word)])
        for line, word in zip(lines[:3], ("why", "name:", "name:"), strict=True)
    ]
    assert len({*at}) == 1  # a column stands below its name
    if columns == 200:
        assert lines[2].endswith("  name: Tannhäuser ~ title: 唐怀瑟; by: a:person/Wagner ~ b:person/W")
    else:
        assert lines[2].endswith("…")


def test_ids_are_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = f"imdb:{'tt' * 50}"
    assert row("same", record(long, long)).endswith(f"{long}  {long}")


def test_texts_are_cut_by_the_columns_that_they_take() -> None:
    assert (fitted("abc", 3), fitted("abcd", 3), fitted("abcd", 0)) == ("abc", "ab…", "")
    assert (width("e\u0301唐"), fitted("唐怀瑟", 6), fitted("唐怀瑟", 5)) == (3, "唐怀瑟", "唐怀…")
