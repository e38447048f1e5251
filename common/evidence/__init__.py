"""Judge results on data of a user's own: the parts of ``mri-sr judge``."""

from .interval import INTERVAL
from .judgement import Judgement, Part, Rows
from .person import Person, correlate
from .volume import Volume

#: The questions, in the order of the page.
PARTS: tuple[Part, ...] = (INTERVAL,)
