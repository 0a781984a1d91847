"""Products against whole numbers in Python's own width, by every kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.search import products
from index.search.products import FEW, Kernel, kernel, prepare, row_products

KERNELS = [*products._kernels(), Kernel("a compiled loop", products._by_loop)]


def some(rng: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    """Vectors with the largest and the smallest bytes among them."""
    return rng.choice(np.array([-128, -127, -1, 0, 1, 55, 127], np.int8), (count, dimensions))


@pytest.mark.parametrize("one", KERNELS, ids=lambda one: one.name)
@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 70),
    rows=st.integers(1, 300),
    dimensions=st.sampled_from([2, 5, 16, 64, 100, 128]),
)
def test_every_kernel_is_exact(one: Kernel, seed: int, queries: int, rows: int, dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    asked, stored = some(rng, queries, dimensions), some(rng, rows, dimensions)
    exact = asked.astype(np.int64) @ stored.T.astype(np.int64)
    out = np.full((queries, rows), 7, np.int32)
    one.prepare(stored)(asked, out)
    assert (out == exact).all()


def test_a_kernel_that_is_not_exact_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(rows: np.ndarray) -> products.Multiply:
        return lambda queries, out: out.fill(0)

    monkeypatch.setattr(products, "_kernels", lambda: [Kernel("quick and wrong", wrong)])
    kernel.cache_clear()
    try:
        assert kernel().name == "a compiled loop"
        assert "a compiled loop" in products.description()
    finally:
        kernel.cache_clear()


@pytest.mark.parametrize("queries", [1, FEW - 1, FEW, 20])
def test_few_queries_and_many_are_answered_alike(queries: int) -> None:
    rng = np.random.default_rng(queries)
    asked, stored = some(rng, queries, 64), some(rng, 50, 64)
    out = np.empty((queries, 50), np.int32)
    prepare(stored, queries)(asked, out)
    pairs = row_products(np.repeat(asked, 50, axis=0), np.tile(stored, (queries, 1)))
    assert (out.reshape(-1) == pairs).all()
    assert (out == asked.astype(int) @ stored.T.astype(int)).all()
