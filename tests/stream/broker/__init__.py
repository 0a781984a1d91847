"""Tests of `stream/broker/`, against real brokers."""
