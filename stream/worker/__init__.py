"""The worker: Faust around the engine, with its transport, its publisher and its chores."""
