"""Which scans there are, and whether they fit together."""
