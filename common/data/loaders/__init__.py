"""Volumes in memory, and what networks are given of them."""
