"""Noise, blur kernels, spline interpolation and scales of scans."""
