"""The MONAI Deploy application. It imports only :mod:`common.io` from this package."""
