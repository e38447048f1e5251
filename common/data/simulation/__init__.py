"""Simulated heads: anatomy, contrast, scanner."""
