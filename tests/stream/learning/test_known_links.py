"""Known links tell right pairs from wrong ones, and from those of which nothing is known."""

import pytest

from stream.learning.known_links import KnownLinks


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
