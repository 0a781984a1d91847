"""Tests of `stream/catalogue/`."""
