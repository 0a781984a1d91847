"""HTML pages and charts that open offline."""
