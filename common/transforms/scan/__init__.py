"""Load, check and normalise scans, and save results."""
