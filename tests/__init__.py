"""Tests. Folders mirror those of the code; what concerns benchmarks, pages and the project lies here."""
