"""The widths of a Gaussian."""

import math

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
