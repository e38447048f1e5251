"""Read, write, name and classify files, images and DICOM series."""
