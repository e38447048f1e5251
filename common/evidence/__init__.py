"""Judge results on data of a user's own: the parts of ``mri-sr judge``."""

from .judgement import Judgement, Part, Rows
from .left_out import LEFT_OUT
from .person import Person, correlate_locally
from .repeated import REPEATED
from .tissues import divide_by_brightness
from .volume import Volume

#: The questions, in the order of the page.
PARTS: tuple[Part, ...] = (LEFT_OUT, REPEATED)
