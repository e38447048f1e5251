"""Values from configs and command lines."""

from __future__ import annotations


def parse_bool(value: bool | str, name: str) -> bool:
    """Read a switch: the command line gives ``--resume true`` as text, a config gives true.

    Args:
        value: the switch's value.
        name: its option or key, for the message.

    Raises:
        ValueError: when the value is neither true nor false.
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError(f"{name} is {value!r}, expected True or False.")
    return text == "true"


def check_whole_numbers(least: int = 1, /, **values: float) -> None:
    """Refuse settings that are not whole numbers of at least ``least``.

    Raises:
        ValueError: with the name and the value of the first wrong setting.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}.")
