"""Named tuples of arrays, one array after the other.

The arrays of a `Side` or an `Encoded` are of different types, which for mypy have nothing but `object` in
common; as arguments of these functions they are arrays.
"""

from collections.abc import Iterable, Iterator

import numpy as np


def arrays(several: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return iter(several)


def in_step(
    some: Iterable[np.ndarray], others: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(some, others, strict=True)
