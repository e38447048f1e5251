"""Read a DICOM MR series as a volume, and write a derived series."""
