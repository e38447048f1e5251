"""Volumes in memory, and batches for networks."""
