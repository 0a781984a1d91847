"""Other tools on the same records, each in an environment of its own: `python -m benchmarks.peers`."""
