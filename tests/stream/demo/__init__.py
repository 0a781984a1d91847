"""Tests of `stream/demo/`."""
