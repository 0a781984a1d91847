"""Training, measuring and aligning whole catalogues without a broker."""
