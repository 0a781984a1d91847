"""Tests of `model/encoding/`."""
