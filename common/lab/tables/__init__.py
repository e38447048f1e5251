"""The tables of methods that ``ablate`` writes: their rows, the runs of the rows, and the merged results."""
