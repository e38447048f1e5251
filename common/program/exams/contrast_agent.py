"""Whether a scan was made with a contrast agent, by its header, its sidecar JSON, or the words that describe it."""

from __future__ import annotations

import re
from typing import Any

#: The words of radiologists' protocols for a contrast agent, in lower case; all that ask for one ask here.
AGENT = (
    r"(gd|gad|gad[ao][a-z]*|dotarem|clariscan|magnevist|multihance|prohance|omniscan|primovist|eovist|vueway|elucirem|"
    r"feraheme|ferumoxytol|ce|dce|ce-?mra|cm|[nmp]?km|i\.v\.|p\.c\.|enhanced|kontrast[a-z]*|contraste?|contrasted|"
    r"[mp]dc|civ|ivkm|inj|injection|inject[eé]e?)"
)
_AFTER = r"(post?|nach|mit|dopo|con|com|avec|apr[eè]s|after|with|met|na|po|med|efter|plus|w|iv|i\.v\.)"
_BEFORE = (
    r"(pre|pr[aä]e?|vor|ohne|nativ[a-z]*|without|w[/_]?o|non?|not|un|sans|avant|senza|prima|sin|antes|sem|before|"
    r"zonder|voor|bez|przed|utan|uden|före|minus|keine?s?|(?<!i\.)(?<!i\.[ _])v|"
    r"phase|high|low|soft|dual|multi|mp2rage|magnetization[ _-]?transfer|mt)"
)
_SEQUENCE = r"([a-z]*?(t[12](w|wi)?|flair|mprage|spgr|bravo|vibe|space|tse|fse|se|gre))"
# What else may follow "post".
_OTHERWISE = (
    "(op|proc|surg|ict|rt|rx|chemo|treat|ther|fossa|mort|partum|natal|trauma|strok|exerc|train|stim|void|transpl|"
    "month|monat|week|day|year)"
)
_GAP = r"[ _./-]*"
# Digits are borders of words too, but those next to "ce" or "cm" may be of a check sum.
_END = r"((t[12]w?|\d*)(?![a-z0-9])|(?<!c[em])(?=\d))"
_NOT = re.compile(
    rf"""(?<![a-z])({_BEFORE}|[os]){_GAP}({_AFTER}{_GAP})?{AGENT}{_END}
        | (?<![a-z]){AGENT}(-(?=[ _]|$) | [ _-]?(frei|neg)(?![a-z]))
        | (?<![a-z0-9+])(-c|c-)(?![a-z0-9])""",
    re.VERBOSE,
)
_WITH = re.compile(
    rf"""(?<![a-z0-9]) {_SEQUENCE}? {_AFTER}? {_GAP} {AGENT} {_END}
        | (?<=[0-9]) (?!c[em]) {AGENT} {_END}
        | ((?<![a-z0-9]) {_SEQUENCE}? | (?<=[0-9])) post(con)? (?![a-z]) (?! {_GAP} \d* {_GAP} {_OTHERWISE})
        | \+ [ _]? ({AGENT}|c|k) (?![a-z0-9])
        | (?<![a-z]) [ck] [ ]? \+
        | (?<![a-z0-9]) [a-z]*? t[12](w|wi)? c (?![a-z0-9])""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"(?<![a-z0-9])(pre|nativ[a-z]*|plain)(?![a-z0-9])")
_BOTH = re.compile(r"(?<![a-z0-9])w(ith)?[ /&+_-]*(and|or)?[ _]*(w/?o|without)(?![a-z])")  # of a protocol that has both
_NONE = re.compile(
    r"(none?|n|nil|null|nan|false|unknown|nativ|0([.,]0*)?|-|n/?a|(no|none|not|ohne|without|w/?o|keine?s?)( .*)?)?",
    re.IGNORECASE,
)
_TAGS = ("ContrastBolusAgent", "ContrastBolusIngredient", "ContrastBolusAgentSequence")
_AMOUNTS = ("ContrastBolusVolume", "ContrastBolusTotalDose")
_FURTHER = ("ProtocolName", "ImageComments")
_WORD = re.compile(f"{AGENT}|{_AFTER}|{_BEFORE}|[+-]?c|c[+-]?")


def mentions_agent(text: str) -> bool | None:
    """Whether words say that a contrast agent was given (T1 KM, T1_+C, ce-gd) or not (T1 pre Gd); None if nothing does.

    Args:
        text: a file's name without folders, or a description.
    """
    text = re.sub(r"(?<![a-z0-9])((sub|ses)-[a-z0-9]+|[0-9.]+[ _]?cm)", "", text.casefold())  # cm of a length
    if _BOTH.search(text):
        return None
    rest = _NOT.sub(" ", text)
    if _WITH.search(rest):
        return True
    return False if rest != text or _PLAIN.search(text) else None


def is_agent_word(word: str) -> bool:
    """Whether a word of a name, in lower case, only says something about a contrast agent."""
    return bool(_WORD.fullmatch(word)) or (mentions_agent(word) is not None and not re.search("t[12]|pd|flair", word))


def has_agent(metadata: Any, name: str = "") -> bool:
    """Whether a scan was made with a contrast agent: by name or SeriesDescription, else tags, else further words.

    Args:
        metadata: with ``get``: a DICOM header, or a sidecar JSON.
        name: of the file, without folders.
    """
    for text in (name, metadata.get("SeriesDescription")):
        if (said := mentions_agent(str(text or ""))) is not None:
            return said
    amounts = [str(metadata.get(key) or 0) for key in _AMOUNTS]
    if any(not _says_none(metadata.get(key)) for key in _TAGS) or any(re.search("[1-9]", text) for text in amounts):
        return True
    return any(mentions_agent(str(metadata.get(key) or "")) for key in _FURTHER)


def _says_none(value: Any) -> bool:
    """Whether a value of a header or of JSON, of any type, names no agent."""
    text = str(value).strip("[]'\" ")
    return not value or bool(_NONE.fullmatch(text)) or mentions_agent(text) is False
