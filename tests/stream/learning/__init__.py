"""Tests of `stream/learning/`."""
