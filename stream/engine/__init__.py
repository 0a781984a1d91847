"""Messages in, outputs out, in twelve steps. No Kafka, no settings. Begin with `aligner.py`."""
