"""Tests of `stream/worker/`, and from end to end."""
