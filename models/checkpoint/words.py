"""How sources and keys are written in messages: on one line, short, and without a secret."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

NAMED = 8  # how many keys a message names; it counts the rest
KEY = 80  # characters of a key
SOURCE = 200  # characters of a source
ELSEWHERE = re.compile(r"\s*([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # how a URL starts; a drive has one letter

_URL = re.compile(r"([a-z][a-z0-9+.-]{1,30})://(\S+)", re.IGNORECASE)
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-f:.]+\](:\d+)?", re.IGNORECASE)
_SECRETS = (
    (
        re.compile(
            r"(?<![\w-])([\w-]*(?:token|signature|secret|passw(?:or)?d|credential|sig|key))=[^\s&#]+", re.IGNORECASE
        ),
        r"\1=…",
    ),
    (re.compile(r"hf_\w{6,}"), "hf_…"),  # a token of the hub
    (re.compile(r"(?<![\w-])(?!hf-hub:)[^\s/:@]+:[^\s/@]+@"), ""),  # user:password@
)


def line(text: str, limit: int) -> str:
    """A text on one line of at most `limit` characters; the middle of a longer one is left out."""
    text = text if len(text) <= limit else f"{text[: (limit - 1) // 2]}…{text[-((limit - 1) // 2) :]}"
    return "".join(c if c.isprintable() else " " for c in text).strip()


def without_secrets(text: str) -> str:
    """A text without passwords, tokens and the queries of URLs."""
    text = _URL.sub(lambda url: _address(url[1], url[2]), text)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def shown(source: str | Path) -> str:
    """A checkpoint's source as messages name it: of a URL only scheme, host and path."""
    text = str(source)
    if start := ELSEWHERE.match(text):
        text = _address(start[1], text[start.end() :])
    return line(without_secrets(text), SOURCE)


def _address(scheme: str, rest: str) -> str:
    """Scheme, host and path of a URL; the scheme alone if a part of a password may be taken for the others."""
    found = re.match(r"([^/?#]*)([^?#;]*)", rest)
    authority, path = (found[1], found[2]) if found else ("", "")
    host = authority.rpartition("@")[2]
    cut_short = "@" in rest[len(authority) :] and (":" in authority or "@" in authority)  # as in "user:pa/ss@host"
    return f"{scheme.lower()}://…" if cut_short or not _HOST.fullmatch(host) else f"{scheme.lower()}://{host}{path}"


def listed(keys: Collection[object]) -> str:
    """The first keys by name, and the number of the others."""
    rest = len(keys) - NAMED
    first = ", ".join(line(str(key), KEY) for key, _ in zip(keys, range(NAMED), strict=False))
    return first + (f" and {rest} more" if rest > 0 else "")
