"""Tests of `stream/state/`."""
