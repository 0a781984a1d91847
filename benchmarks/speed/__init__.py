"""How fast, how large, and does it stay so: `python -m benchmarks.speed`."""
