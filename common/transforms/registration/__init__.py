"""Volumes of a subject onto each other, or off each other."""
