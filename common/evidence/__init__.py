"""Judge results on data of a user's own: the parts of ``mri-sr judge``."""

from .anatomy import ANATOMY
from .judgement import Judgement, Part, Rows
from .person import Person, correlate_locally
from .tissues import divide_by_brightness
from .volume import Volume

#: The questions, in the order of the page.
PARTS: tuple[Part, ...] = (ANATOMY,)
