"""Whose a scan is, which scans are of one exam, and the weights for each."""
