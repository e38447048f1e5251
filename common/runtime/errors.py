"""Report an error that ends a program: one message, and the traceback if it is asked for."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO

PACKAGE = Path(__file__).parents[1]
PROGRAM = "python -m common" if __package__ == "common.runtime" else "mri-sr"  # how it is called here
INTERRUPTED, UNREAD = 130, 141  # exit statuses of shells
_SAY_ALL = (ValueError, OSError, ImportError, RuntimeError)  # errors whose messages need no type name

# MONAI's messages about components, which blocks may wrap in functools.partial, and about expressions.
_COMPONENT = re.compile(r"Failed to instantiate component '(?:functools\.partial\(<\w+ ')?([\w.]+)")
_EXPRESSION = re.compile(r"Failed to evaluate \w+:\s*(.+)", re.DOTALL)
_MISSING = re.compile(r"Cannot locate class or function path: '(\w+)\.")
_REFERENCE = re.compile(r"__local_refs\['(.+?)'\]")


class Notice(UserWarning):
    """What a user may like to know of a scan, but need not act on: a plain ``UserWarning`` asks for a look."""


class Contradiction(UserWarning):
    """That a network's result disagrees with its scan more than results did in validation."""


class RunsFailedError(RuntimeError):
    """Some runs of a table failed; the others are done."""


def format_call(command: str) -> str:
    """How to call a command from here: in the repository, or by the package that pip installs."""
    return f"{PROGRAM} {command}"


def get_message(error: BaseException) -> str:
    """The message of an error's first cause, or of this package's error that names the cause.

    MONAI wraps errors in a config in errors of its own. Messages from other libraries do not mention the config. The
    component or expression that MONAI was evaluating is added to them.
    """
    *_, around, error = [None, *_list_causes(error)]
    text = str(error).strip()
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return "there is too little memory for it; free some, crop the scan, or use a larger machine."
    if _is_user_error(error):
        return text
    if not isinstance(error, _SAY_ALL) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    if (missing := _MISSING.match(text)) and importlib.util.find_spec(missing[1]) is None:
        text += f" Run this in the folder of the module {missing[1]}, or put PYTHONPATH=FOLDER before the command."
    if component := _COMPONENT.match(str(around)):
        text += f" (in {component[1].rpartition('.')[2]})"
    elif expression := _EXPRESSION.match(str(around)):
        text += " (in " + _REFERENCE.sub(r"@\1", " ".join(expression[1].split())) + ")"
    return text


def get_first_line(error: BaseException) -> str:
    """The first line of an error's message, for a list of what failed."""
    return get_message(error).partition("\n")[0]


def find_first_cause(error: BaseException) -> BaseException:
    """The error that MONAI and others wrap in errors of their own: this package's, or else the first of the chain."""
    return _list_causes(error)[-1]


def _list_causes(error: BaseException) -> list[BaseException]:
    """An error, its cause, and so on, until this package's error or the first of the chain."""
    causes = [error]
    while causes[-1].__cause__ is not None and not _is_user_error(causes[-1]):
        causes.append(causes[-1].__cause__)
    return causes


class Output:
    """A stream that ends the program silently when its reader has closed it, for example ``| head``.

    It raises ``SystemExit(141)``, which error handlers do not catch. Characters that the stream cannot encode, such as
    those of a file's name that is no UTF-8, are written as escapes.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write."""
        return self._call_or_exit(self._stream.write, text)

    def flush(self) -> None:
        """Flush."""
        self._call_or_exit(self._stream.flush)

    def _call_or_exit(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except BrokenPipeError:
            _close_stdout()


def format_error(error: BaseException, with_traceback: bool) -> str:
    """The last message of a program that an error ended.

    Args:
        error: the error.
        with_traceback: whether to print the traceback. If not, and the error is not one of this package's own
            messages, the traceback is saved in a temporary file, which the message names.
    """
    text = f"error: {get_message(error)}"
    if with_traceback:
        traceback.print_exception(error)
    elif not _is_user_error(find_first_cause(error)):
        with tempfile.NamedTemporaryFile(
            "w", prefix="traceback-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.writelines(traceback.format_exception(error))
        text += f"\nThe traceback is in {log.name}; --traceback True prints it."
    sys.stdout.flush()  # so that the message comes last if both go to one file
    return text


def report_uncaught(with_traceback: bool, advise: Callable[[], str]) -> None:
    """Let an error that nothing catches end the process with one message.

    MONAI, which is the program that runs a config, wraps errors in errors of its own and prints all their tracebacks.
    Only a hook can replace what it prints.

    Args:
        with_traceback: as for :func:`format_error`.
        advise: says how to continue an interrupted run.
    """

    def print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            if with_traceback:
                traceback.print_exception(error)
            print(f"\ninterrupted{advise()}.", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        if isinstance(find_first_cause(error), BrokenPipeError):
            _close_stdout()
        print(f"\n{format_error(error, with_traceback)}", file=sys.stderr)

    sys.excepthook = print_error
    for handler in logging.getLogger().handlers:
        # Ignite's line about an engine that Ctrl-C ended has no reason; the message above reports that.
        handler.addFilter(lambda record: not record.getMessage().endswith("is terminating due to exception: "))


def _close_stdout() -> NoReturn:
    """End the process silently, because the reader of what it prints has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again when it ends
    raise SystemExit(UNREAD) from None


def _is_user_error(error: BaseException) -> bool:
    """Whether this package raised an error, with a message for its users."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    # TypeErrors and the like may come from this package's code, but without a message for users.
    return (
        place is not None
        and isinstance(error, _SAY_ALL)
        and Path(place.tb_frame.f_code.co_filename).is_relative_to(PACKAGE)
    )
