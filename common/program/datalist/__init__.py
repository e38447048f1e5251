"""A dataset.json from the files of a folder."""
