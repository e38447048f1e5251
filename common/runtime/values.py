"""Values from configs and command lines."""

from __future__ import annotations


def check_whole_numbers(least: int = 1, /, **values: float) -> None:
    """Refuse settings that are not whole numbers of at least ``least``.

    Raises:
        ValueError: with the name and the value of the first wrong setting.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}.")
