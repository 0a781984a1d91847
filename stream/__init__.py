"""The way of an event: what comes in, what goes out, and everything in between that is not mathematics."""
