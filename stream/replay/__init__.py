"""The topics again, through an aligner of its own: runs, reports and comparisons."""
