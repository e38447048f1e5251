"""What a user is told of an error that ends a program: one message, and the traceback where it is asked for."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

PACKAGE = Path(__file__).parent
INTERRUPTED, UNREAD = 130, 141  # exit statuses, as shells have them
_SAY_ALL = (ValueError, OSError, ImportError, RuntimeError)  # whose messages do without their names

# What MONAI says of components, which blocks have made functions of, and of expressions.
_COMPONENT = re.compile(r"Failed to instantiate component '(?:functools\.partial\(<\w+ ')?([\w.]+)")
_EXPRESSION = re.compile(r"Failed to evaluate \w+:\s*(.+)", re.DOTALL)
_REFERENCE = re.compile(r"__local_refs\['(.+?)'\]")


class RunsFailedError(RuntimeError):
    """Some runs of a table failed; the others are done."""


def message_of(error: BaseException) -> str:
    """The first cause of an error, in the words of whoever raised it.

    MONAI wraps what goes wrong in a config in errors of its own. A cause from another library, which knows nothing of
    the config, is told with the component or expression that MONAI was at.
    """
    around = None
    while error.__cause__ is not None:
        around, error = error, error.__cause__
    text = str(error).strip()
    if _is_ours(error):
        return text
    if not isinstance(error, _SAY_ALL) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    if component := _COMPONENT.match(str(around)):
        text += f" (in {component[1].rpartition('.')[2]})"
    elif expression := _EXPRESSION.match(str(around)):
        text += " (in " + _REFERENCE.sub(r"@\1", " ".join(expression[1].split())) + ")"
    return text


def first_cause(error: BaseException) -> BaseException:
    """What was raised first, under what MONAI and others wrapped it in."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class Output:
    """A stream that ends the program without a word when nobody reads it any more, as ``| head`` leaves it.

    It raises ``SystemExit(141)``, which handlers of errors let pass.

    Args:
        stream: to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write."""
        return self._read(self._stream.write, text)

    def flush(self) -> None:
        """Flush."""
        self._read(self._stream.flush)

    def _read(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # Python flushes it once more at its end
            raise SystemExit(UNREAD) from None


def report(error: BaseException, with_traceback: bool) -> str:
    """The message with which a program ends.

    Args:
        error: what ended it.
        with_traceback: whether to print the traceback. Without, that of an error which is none of this package's own
            messages is kept in a file of the folder for temporary files, which the message names.
    """
    text = f"error: {message_of(error)}"
    if with_traceback:
        traceback.print_exception(error)
    elif not _is_ours(error):
        with tempfile.NamedTemporaryFile(
            "w", prefix="traceback-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.writelines(traceback.format_exception(error))
        text += f"\nThe traceback is in {log.name}; --traceback true prints it."
    sys.stdout.flush()  # so that the message comes last where both go to one file
    return text


def _is_ours(error: BaseException) -> bool:
    """Whether the first cause was raised by this package, with a message that is meant for its users."""
    error = first_cause(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    # TypeErrors and the like may come from code of this package, but were not raised with a message.
    return (
        place is not None
        and isinstance(error, _SAY_ALL)
        and Path(place.tb_frame.f_code.co_filename).is_relative_to(PACKAGE)
    )
