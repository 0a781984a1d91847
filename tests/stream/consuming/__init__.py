"""Tests of `stream/consuming/`."""
