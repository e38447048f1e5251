"""Affines, grids, resampling, Gaussian averages and rigid motion."""
