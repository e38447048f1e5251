"""The MONAI Deploy application. It imports only :mod:`common.io.dicom_series` from this package."""
