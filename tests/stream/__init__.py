"""Tests of `stream/`, and the helpers that they share."""
