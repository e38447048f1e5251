"""Exported bundles in other programs."""
