"""Least likeness of two volumes of one person, after registration; below, they may be of two persons."""

#: Correlation of stacks, each standardised in windows of 8 mm: one person 0.66 and more, two at most 0.49.
LEAST_STACK_CORRELATION = 0.57
#: The same of volumes in one place that were sampled at 2 mm: two persons at most 0.49.
LEAST_VOLUME_CORRELATION = 0.6
#: Normalised mutual information, minus 1, of registered contrasts: 0.22 to 0.41 in eight pairs of one person, two of
#: them FLAIR and one with slices of 6 mm, and 0.11 to 0.16 in seven pairs of two persons.
LEAST_MUTUAL_INFORMATION = 0.19

#: mm, standard deviation of the window in which volumes are standardised before they are correlated.
WINDOW = 8.0
#: Of the brightest: windows with a smaller standard deviation show nothing.
FLAT = 0.03
