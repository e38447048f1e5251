"""The MONAI Deploy application. Of this package it imports :mod:`common.io.dicom_series` alone."""
