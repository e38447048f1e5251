"""Judge results on data of a user's own: the parts of ``mri-sr judge``."""

from .added import ADDED
from .anatomy import ANATOMY
from .inserted_lesions import INSERTED_LESIONS
from .interval import INTERVAL
from .judgement import Judgement, Question, Rows
from .left_out import LEFT_OUT
from .lesions import LESIONS
from .person import Person, correlate_locally
from .repeated import REPEATED
from .scores import SCORES
from .volume import Volume

#: The questions, in the order of the page.
PARTS: tuple[Question, ...] = (
    LEFT_OUT,
    REPEATED,
    ANATOMY,
    LESIONS,
    INSERTED_LESIONS,
    ADDED,
    INTERVAL,
    SCORES,
)
