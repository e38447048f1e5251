"""The help of a command of ``python -m common``, and a check of its command line before it runs.

Fire reports an unknown option only after the command has run without it, and cuts its help texts off.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter

_FLAG = re.compile("--|-[a-zA-Z]")  # as fire reads it: -1 is a number
_YES_OR_NO = ("yes", "no", "on", "off", "1", "0")  # which someone may write for true or false
_NUMBER = re.compile(r"-?\d+\.?\d*(e-?\d+)?")


def order_words(function: Callable, words: Sequence[str]) -> list[str]:
    """Write a command line's options in full, and before them the paths of a function that takes any number of words.

    One letter is short for the only option that begins with it, and -o for the output. A path may follow a switch, or
    an option whose value is no file. After a file it may be of a pattern that was not quoted. An option of several
    words takes all up to the next option.
    """
    options, several, _ = _read_options(function)
    letters = _find_letters(options)
    before, _ = split_arguments(words)
    paths: list[str] = []
    others: list[str] = []
    option = ""  # the latest, and its value, or None if it has none yet
    value: str | None = ""
    for word in before:
        if _FLAG.match(word) and not os.path.exists(word):
            name, equals, given = word.partition("=")
            option, value = letters.get(name, name), given if equals else None
            others.append(option + equals + given)
            continue
        switch = options.get(_read_name(option))
        if switch is not None and takes_words(switch):
            others[-1] += ("," if "=" in others[-1] else "=") + word
            continue
        is_path = switch is not None and _is_switch(switch)
        if switch is not None and not os.path.exists(word):
            is_path = is_path and bool(_find_misfit(switch, word)) and word.lower() not in _YES_OR_NO
        if value is not None:
            is_path = not option or (os.path.exists(word) and not os.path.isfile(value))
        if several and is_path:
            paths.append(word)
            option, value = "", ""  # and so is what follows
        else:
            others.append(word)
            value = word if value is None else value
    return [*paths, *others, *words[len(before) :]]


def find_usage_problems(function: Callable, words: Sequence[str]) -> list[str]:
    """Return a sentence for each word after a command's name that does not fit it.

    Words without an option come before the options. In order, they fill the arguments before ``*`` in the function's
    signature. Without ``*`` they fill the required arguments. With ``*words`` they all belong to it. No word after
    ``--`` is an option, even if it begins with a dash.
    """
    options, variadic, takes_any = _read_options(function)
    alone, given_options = parse_arguments(words)
    before, _ = split_arguments(words)
    problems = [
        f"'{word}' is a file whose name begins with a dash; write such names after --, behind all options."
        for word in before
        if _FLAG.match(word) and os.path.exists(word)
    ]
    if problems:
        return problems
    filled = []
    for place, (word, after) in enumerate(alone):
        name = variadic or (_list_positional(options)[place] if place < len(_list_positional(options)) else None)
        if name is None or name in given_options or after:
            behind = f" after --{after}" if after else ""
            first = " Or write it before the options." if after and variadic else ""
            problems.append(f"'{word}'{behind} belongs to no option; did you quote the pattern or the list?{first}")
        else:
            filled.append(name)
    for name, value in given_options.items():
        if name in options:
            problems += _find_misfit(options[name], value)
        elif len(name) == 1:
            same = " or ".join(f"--{key}" for key in options if key[0] == name)
            problems.append(f"-{name}: there is no such option" + (f"; did you mean {same}?" if same else "."))
        elif not takes_any and not (value is None and _is_switch(options.get(name.removeprefix("no")))):
            problems.append(f"--{name}: there is no such option{suggest(name, options) or '.'}")
    for name, option in options.items():
        if option.default is option.empty and name not in given_options and name not in filled:
            problems.append(f"--{name} is missing.")
    return problems


def format_help(function: Callable, name: str) -> str:
    """Write a command's help for the width of the terminal: its docstring without ``Raises``, and its arguments."""
    options, several, takes_any = _read_options(function)
    described, arguments = _split_docstring(inspect.getdoc(function) or "")
    width = min(shutil.get_terminal_size().columns, 120) - 1
    required = {key for key, option in options.items() if option.default is option.empty}
    positional = [key.upper() if key in required else f"[{key.upper()}]" for key in _list_positional(options)]
    positional = [f"{several.upper()} ..."] if several else positional
    lines = [*textwrap.wrap(" ".join([name, *positional, "[options]"]), width, subsequent_indent="    "), ""]
    for paragraph in described:
        lines += [*textwrap.wrap(paragraph, width), ""]
    entries = {several.upper(): arguments.pop(several, "")} if several else {}
    letters = {f"--{key}": f"--{key}" for key in options} | {
        option: f"{option}, {letter}" for letter, option in _find_letters(options).items()
    }
    for key, option in options.items():
        default = "must be given" if key in required else _format_default(option.default)
        entries[letters[f"--{key}"] + (f"  ({default})" if default else "")] = arguments.pop(key, "")
    if takes_any:
        entries["--<any key>"] = next(iter(arguments.values()), "")
    if "quiet" not in options:
        entries["--quiet, -q  (false)"] = "true to print only warnings and failures."
    entries["--traceback  (false)"] = "true to print where in the code an error was raised."
    for title, text in entries.items():
        lines += [f"  {title}"]
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def suggest(name: str, known: Iterable[str], dashes: str = "--") -> str:
    """Ask, at the end of a sentence, whether the nearest name was meant, or one of those as near; "" if none is."""
    close = difflib.get_close_matches(name, list(known), n=3)
    likeness = [difflib.SequenceMatcher(None, other, name).ratio() for other in close]
    close = [other for other, ratio in zip(close, likeness, strict=True) if ratio == likeness[0]]
    return f"; did you mean {' or '.join(dashes + other for other in close)}?" if close else ""


def _read_options(function: Callable) -> tuple[dict[str, Parameter], str | None, bool]:
    """A function's named arguments, the name of the one that takes all other words, and whether it takes any key."""
    parameters = inspect.signature(function).parameters.values()
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    several = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    return named, several, any(p.kind is p.VAR_KEYWORD for p in parameters)


def quote_values(function: Callable, words: Sequence[str]) -> list[str]:
    """Write a command line for Fire, which would read numbers in paths, and take words after ``--`` as its own options.

    Words without an option are quoted if the function takes any number of them. Else those after ``--`` get names.
    """
    before, behind = split_arguments(words)
    count = len(parse_arguments(before)[0])  # these come first
    options, several, _ = _read_options(function)
    if several:
        return [*map(repr, [*before[:count], *behind]), *before[count:]]
    names = _list_positional(options)[count:]
    return [*before, *(f"--{name}={word}" for name, word in zip(names, behind, strict=False))]


def split_arguments(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before and after ``--``."""
    at = [*words, "--"].index("--")
    return words[:at], words[at + 1 :]


def _find_letters(options: Mapping[str, Parameter]) -> dict[str, str]:
    """The short forms of options, and the options: those that alone begin with their letter, and always -o."""
    letters = Counter(key[0] for key in ["help", *options])
    return {f"-{key[0]}": f"--{key}" for key in options if letters[key[0]] == 1 or key in ("output", "output_dir")}


def _read_name(word: str) -> str:
    """The name of an option from its word on the command line."""
    return word.lstrip("-").replace("-", "_")


def _list_positional(options: Mapping[str, Parameter]) -> list[str]:
    """The arguments that words without an option fill."""
    ordered = [p for p in options.values() if p.kind is not p.KEYWORD_ONLY]
    return [p.name for p in ordered if len(ordered) < len(options) or p.default is p.empty]


def parse_arguments(words: Sequence[str]) -> tuple[list[tuple[str, str]], dict[str, str | None]]:
    """Return the words without an option, each with the option before it or ""; and each option's word, or None."""
    alone: list[tuple[str, str]] = []
    options: dict[str, str | None] = {}
    latest, waits = "", False
    before, behind = split_arguments(words)
    for word in before:
        if _FLAG.match(word):
            option, equals, value = word.partition("=")
            latest = _read_name(option)
            options[latest], waits = value if equals else None, not equals
        elif waits:
            options[latest], waits = word, False
        else:
            alone.append((word, latest))
    return [*alone, *((word, "") for word in behind)], options


def _find_misfit(option: Parameter, value: str | None) -> list[str]:
    """Why a word is not a value for an option."""
    kinds = str(option.annotation).split(" | ")
    if _is_switch(option):
        fits = value is None or value.lower() in ("true", "false") or "str" in kinds
        return [] if fits else [f"--{option.name} is '{value}', expected True or False."]
    if value is None:
        return [f"--{option.name} has no value."]
    several = any(kind.startswith(("Sequence[", "tuple[", "list[")) for kind in kinds)
    if several and not takes_words(option) and not {"int", "float", "str"} & set(kinds) and _NUMBER.fullmatch(value):
        example = "1,2,3" if not option.default or option.default is option.empty else _format_default(option.default)
        return [f"--{option.name} is {value}, expected several, for example --{option.name} {example}."]
    return []


def takes_words(option: Parameter) -> bool:
    """Whether an option takes any number of words."""
    return str(option.annotation).startswith("tuple[str, ...]")


def _is_switch(option: Parameter | None) -> bool:
    return option is not None and isinstance(option.default, bool)


def _split_docstring(docstring: str) -> tuple[list[str], dict[str, str]]:
    """Paragraphs before the arguments, and the arguments' descriptions."""
    before, _, after = docstring.replace("``", "`").partition("\nArgs:\n")
    block = re.split(r"^(?=\S)", after, flags=re.M)[0]  # up to the next section
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", block, flags=re.M)
    arguments = {name: " ".join(text.split()) for name, text in entries}
    return [" ".join(paragraph.split()) for paragraph in before.split("\n\n")], arguments


def _format_default(default: object) -> str:
    """A default as a command line gives it; empty for None."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (list, tuple)):
        return ",".join(str(item) for item in default)
    return "" if default is None else str(default)
