"""Calls that must be refused, and the words that a user needs of the message."""

from collections.abc import Callable

import pytest


def refused(call: Callable[[], object], kind: type[BaseException], *words: object) -> str:
    """The message of the error that a call raises, in which each of these words must be.

    Args:
        call: to make.
        kind: of the error.
        words: what the message must hold as it is: the file or key, what was found, what to set. Not its sentences,
            so that a better sentence breaks no test.
    """
    with pytest.raises(kind) as caught:
        call()
    return has(str(caught.value), *words)


def has(message: str, *words: object) -> str:
    """A message, in which each of these words must be."""
    missing = [str(word) for word in words if str(word) not in message]
    assert not missing, f"not in the message: {missing}\n{message}"
    return message
