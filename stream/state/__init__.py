"""The state directory: which generation is in force, and which is wanted."""
