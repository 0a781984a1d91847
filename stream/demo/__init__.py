"""The demo: its data, its play, and what it measures."""
