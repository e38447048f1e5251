"""The tables of methods that ``ablate`` makes: their rows, the runs of these, and what they leave, merged."""
