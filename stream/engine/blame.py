"""Which of many things makes work fail that is done for all of them together."""

from collections.abc import Callable, Iterator, Sequence

from index.errors import StoreError
from index.search.arrays import Pairs
from stream.engine.pairs import FoundPairs


def failing(work: Callable[[int, int], object], count: int) -> int | None:
    """The place of a thing with which work fails also when it is done for this one alone; None: of none.

    Costs about as much as the whole work.

    Args:
        work: is given the place of the first thing, and of the one after the last.

    Raises:
        StoreError: nothing can be read.
    """
    first, end = 0, count
    while end - first > 1:
        middle = (first + end) // 2
        if _fails(work, first, middle):
            end = middle
        else:
            first = middle
    return first if end > first and _fails(work, first, end) else None


def cut(found: Sequence[FoundPairs], first: int, end: int) -> Iterator[FoundPairs]:
    """Those of all pairs that stand from `first` up to `end`."""
    for sources, (left, right) in found:
        if part := range(len(left))[max(first, 0) : max(end, 0)]:
            yield FoundPairs(sources, Pairs(left[part.start : part.stop], right[part.start : part.stop]))
        first, end = first - len(left), end - len(left)


def _fails(work: Callable[[int, int], object], first: int, end: int) -> bool:
    try:
        work(first, end)
    except StoreError:
        raise
    except Exception:
        return True
    return False
