"""Exact nearest-neighbour search: dense and sparse vectors, cells, and the compiled loops under them."""
