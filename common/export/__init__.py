"""A bundle out of the repository: its code, its weights in the forms that clients read, one zip."""

from .archive import unpack
from .bundle import export

__all__ = ["export", "unpack"]
