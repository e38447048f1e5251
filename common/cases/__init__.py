"""The way of a case through mri-sr: it is discovered, its weights are chosen, and it is run."""
