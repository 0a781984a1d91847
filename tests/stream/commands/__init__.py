"""Tests of `stream/commands/`."""
