"""Tests of `stream/replay/`."""
