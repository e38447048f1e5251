"""DICOM MR series: reading one as a volume, and writing one that is derived from it."""
