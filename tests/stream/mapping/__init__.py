"""Tests of `stream/mapping/`."""
