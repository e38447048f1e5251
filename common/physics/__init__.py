"""Noise, blur kernels, and scales of scans."""
