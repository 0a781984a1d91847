"""Tests of `model/scoring/`."""
