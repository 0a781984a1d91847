"""The multimap against a dictionary of sets."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.search.postings import Postings

PAIR = st.tuples(st.sampled_from([0, 1, 2, 63, 64, 2**31, 2**32 - 2]), st.integers(0, 2**32 - 1))
STEP = st.tuples(st.booleans(), st.sets(PAIR, max_size=60))

Step = tuple[bool, set[tuple[int, int]]]


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(pairs, np.uint32).reshape(len(pairs), 2)
    return array[:, 0].copy(), array[:, 1].copy()


@given(st.lists(STEP, max_size=8))
def test_what_is_found_is_what_was_added_and_not_removed(steps: list[Step]) -> None:
    postings = Postings()
    model: dict[int, set[int]] = defaultdict(set)
    for add, pairs in steps:
        chosen = [pair for pair in pairs if (pair[1] in model[pair[0]]) != add]
        (postings.add if add else postings.remove)(*columns(chosen))
        for word, value in chosen:
            (model[word].add if add else model[word].remove)(value)
    words = np.array([*model, 5], np.uint32)
    place, values = postings.find(words)
    found = defaultdict(list)
    for word, value in zip(words[place].tolist(), values.tolist(), strict=True):
        found[word].append(value)
    assert {word: sorted(some) for word, some in found.items()} == {
        word: sorted(some) for word, some in model.items() if some
    }


def test_what_comes_and_goes_takes_no_more_room() -> None:
    postings = Postings()
    for number in range(300):
        words = np.arange(200, dtype=np.uint32) + np.uint32(200 * number)
        postings.add(words, words)
        postings.remove(words, words)
    assert len(postings.table.word) <= 1024
    assert len(postings.table.pool) <= 4096
