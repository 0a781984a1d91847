"""The attention model: what is compared, how it is learned, how good it is."""
