"""Judge results on data of a user's own: the questions of ``mri-sr judge``, a class each."""
