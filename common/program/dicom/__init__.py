"""Parts of reading a DICOM MR series as a volume, and of writing a derived one."""
