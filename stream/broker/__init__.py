"""Kafka for a plain client: connecting, topics, reading, producing, and the embedded broker."""
