"""Tests of `stream/engine/`."""
