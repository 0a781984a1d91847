"""How deep triple terms are nested is found in any pieces, whatever texts, IRIs and comments hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.catalogue.triple_terms import MAX_DEPTH, Nesting
from stream.errors import InvalidInput

# what only looks like the beginning or the end of a triple term
HARMLESS = [
    *(
        '"<<("',
        '")>>"',
        '"\\"<<("',
        "'<<('",
        '"""<<( " ""\n)>>"""',
        "'''<<( ' '' )>>'''",
        '""',
        "''",
        '""""""',
    ),
    *("<http://x/a#b)>", "# <<( )>> \" '\n", "<<", ">>", "( ", " )", "p:it\\'s", "p:a\\#b", "12", "."),
]


def is_too_deep(pieces: list[bytes]) -> bool:
    nesting = Nesting()
    try:
        for piece in pieces:
            nesting.follow(piece)
    except InvalidInput as error:
        assert error.reason == "too-deep"
        return True
    return False


@given(
    st.lists(st.sampled_from(HARMLESS), max_size=5),
    st.sampled_from([1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 3 * MAX_DEPTH]),
    st.integers(1, 50),
)
def test_depth_is_that_of_triple_terms_alone(between: list[str], depth: int, size: int) -> None:
    inside = " ".join(["", *between, ""])
    text = f"{inside} {f'<<( p:a p:b {inside}' * depth} p:c {f'{inside} )>>' * depth}{inside}   "
    text += f"<<( p:a p:b p:c )>> {inside}" * (MAX_DEPTH + 1)  # beside each other
    raw = text.encode()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert is_too_deep(pieces) == is_too_deep([raw]) == (depth > MAX_DEPTH)


@pytest.mark.parametrize("opening", ['"', "'", '"""', "'''", "<", "#"])
def test_what_is_left_open_costs_one_look_at_each_piece(opening: str) -> None:
    nesting = Nesting()
    nesting.follow(opening.encode())
    for _ in range(100):
        nesting.follow(b"<<( " * 1000)
        assert len(nesting._rest) < 5
