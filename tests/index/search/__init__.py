"""Tests of `index/search/`."""
