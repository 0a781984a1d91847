"""From two encoded entities to a score: pairs, the network, the trees, and the compiled path that serves."""
