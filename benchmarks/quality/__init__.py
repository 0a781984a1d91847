"""How good are the answers, on data sets with known ones: `python -m benchmarks.quality`."""
