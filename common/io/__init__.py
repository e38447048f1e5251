"""Files, images and DICOM series: what they are, and how they are read and written."""
