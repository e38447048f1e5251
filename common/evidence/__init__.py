"""Judge results on data of a user's own: the parts of ``mri-sr judge``."""

from .added import ADDED
from .inserted_lesions import INSERTED_LESIONS
from .judgement import Judgement, Part, Rows
from .lesions import LESIONS
from .person import Person, correlate_locally
from .scores import CHALLENGE, SCORES
from .volume import Volume

#: The questions, in the order of the page.
PARTS: tuple[Part, ...] = (LESIONS, INSERTED_LESIONS, ADDED, SCORES, CHALLENGE)
