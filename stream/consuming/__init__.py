"""What a worker wrote: alignments, their log, dead letters, and exports."""
