"""``python -m common datalist``: assign volumes to groups, at random or by hand."""

from ..datalist.assignment import write_datalist

__all__ = ["write_datalist"]
