"""Gaussians, noise, blur kernels, spline interpolation and scales of scans."""
