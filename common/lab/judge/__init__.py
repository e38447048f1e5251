"""Judge results on data of a user's own: the assessments of ``mri-sr judge``, a class each."""
