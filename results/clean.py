"""What may stand in a record: plain text of one line, finite numbers, and nothing of who measured where.

A model's code may raise any text: escape sequences, half of a surrogate pair, megabytes, a path with the user's name, a
URL with a token. `text` is the one place that cleans it, as it is recorded.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

LONGEST = 2_000  # characters of a text
DEEPEST = 40  # lists and dicts within each other
LARGEST = 2**63 - 1
SECRET, USER, HOST = "<secret>", "<user>", "<host>"
EVERYONE = {  # names that tell nothing
    *("root", "user", "nobody", "runner", "ubuntu", "admin", "docker", "test", "localhost"),
    *("cpu", "gpu", "cuda", "torch", "python", "linux", "model"),
}
SHORTEST_NAME, SHORTEST_SECRET = 3, 8  # characters; shorter ones stand in other words
_VALUE = r"[^\s\"'&,;<>()]{4,}"
_SECRETS = [
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{6,}"), SECRET),
    (
        re.compile(r"\b(?:gh[opsur]_|github_pat_|glpat-|xox[abprs]-|pypi-)[A-Za-z0-9_-]{8,}|\bsk-[A-Za-z0-9_-]{16,}"),
        SECRET,
    ),
    (re.compile(r"\b(?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{12,}|\bAWS[A-Za-z0-9/+]{12,}"), SECRET),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"), SECRET),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {SECRET}"),
    (re.compile(r"(://)[^/\s@]{1,200}@"), rf"\1{SECRET}@"),
    (
        re.compile(
            r"([?&;][\w.-]{0,40}(?:key|token|secret|sig|signature|password|auth|credential)=)[^&\s\"'#]+", re.IGNORECASE
        ),
        rf"\1{SECRET}",
    ),
    (
        re.compile(
            rf"((?<![A-Za-z0-9])(?:[\w-]{{0,40}}[-_])?(?:secret|passw(?:or)?d|passphrase|pwd|credentials?|"
            rf"(?:api|access|auth|session|private|account|bearer|hf|hub|wandb)[-_]?(?:key|token)(?:[-_]id)?)"
            rf"[\"']?\s*[=:]\s*[\"']?){_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{SECRET}",
    ),
    (re.compile(rf"(\b[A-Z][A-Z0-9_]*_(?:KEY|TOKEN)[\"']?\s*[=:]\s*[\"']?){_VALUE}"), rf"\1{SECRET}"),
]
_HOLDS_A_SECRET = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")  # a variable's name
_END = r"(?=[/\s'\":,;)\]]|$)"
_HOMES = re.compile(rf"(?<![\w.~-])(?:/(?:home|Users|var/home|export/home)/[^/\s'\":,;)\]]+|/root){_END}")
_ESCAPES = re.compile(  # what a terminal takes for an order
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[@-Z\\-_])|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROLS = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SPACES = re.compile(r"[\t\n\v\f\r]+")
Said = Callable[[str, str], None]  # where, what


def text(words: str) -> str:
    """A text as a record has it: one line, no control characters, at most 2,000 characters, nothing personal or secret.

    Home folders become `~`, names `<user>` and `<host>`, tokens, passwords and keys `<secret>`. Half a surrogate pair
    and control characters are spelt out, "\\udc80". Cleaning twice is cleaning once.
    """
    length = len(words)
    if length > 3 * LONGEST:  # patterns need not look at megabytes; what is cut off is told below
        words = words[: 3 * LONGEST]
    words = _CONTROLS.sub(_spelt, _SPACES.sub(" ", _ESCAPES.sub("", words)))
    for pattern, instead in (*_personal(), *_SECRETS):
        words = pattern.sub(instead, words)
    if len(words) > LONGEST or length > 3 * LONGEST:
        told = f" … (cut: {length:,} characters)"
        words = words[: LONGEST - len(told)] + told
    return words


def values(found: Any, said: Said = lambda where, what: None, where: str = "", depth: int = 0) -> Any:
    """A value of JSON in place of any value: texts cleaned, what JSON cannot hold replaced by None.

    Keys are left as they are, except those that are no text or could not be written. Equal values give equal ones.

    Args:
        said: is called for each value that was replaced, with its place and what it was.
    """
    if found is None or isinstance(found, bool | str):
        return text(found) if isinstance(found, str) else found
    if isinstance(found, list | tuple | dict) and depth <= DEEPEST:
        if isinstance(found, dict):
            named = ((_key(key), one) for key, one in found.items())
            return {key: values(one, said, f"{where}.{key}" if where else key, depth + 1) for key, one in named}
        if all(type(one) is float and isfinite(one) for one in found):
            return list(found)
        return [values(one, said, f"{where}[{number}]", depth + 1) for number, one in enumerate(found)]
    if problem := _no_json(found):
        said(where, problem)
        return None
    return int(found) if isinstance(found, int) else float(found)


def _no_json(found: Any) -> str | None:
    """Why JSON cannot hold a value that is no text, list or dict; None if it can."""
    if isinstance(found, int):
        return None if -LARGEST <= found <= LARGEST else "a whole number of more than 63 bits"
    if isinstance(found, float):
        return None if isfinite(found) else f"{float(found)}"
    if isinstance(found, list | tuple | dict):
        return f"deeper than {DEEPEST} levels"
    return f"{type(found).__name__}, which is no value of JSON"


def _key(key: Any) -> str:
    return key if isinstance(key, str) and not _CONTROLS.search(key) and len(key) <= LONGEST else text(str(key))


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@cache
def _personal() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns of this user and this machine, and what stands in their place."""
    held = {value for name, value in os.environ.items() if _HOLDS_A_SECRET.search(name.upper())}
    found = [
        (re.compile(re.escape(value)), SECRET)
        for value in sorted(held, key=len, reverse=True)
        if len(value) >= SHORTEST_SECRET and not value.startswith("/")
    ]
    homes = {os.environ.get("HOME", "").rstrip("/")}
    with suppress(RuntimeError, OSError):
        homes.add(str(Path.home()).rstrip("/"))
    found += [
        (re.compile(rf"(?<![\w.~-]){re.escape(place)}(?![\w.-])"), "~")
        for place in sorted(filter(None, homes), key=len, reverse=True)
    ]
    found.append((_HOMES, "~"))
    for names, instead in ((_users(), USER), (_hosts(), HOST)):
        found += [
            (re.compile(rf"(?<![A-Za-z0-9<]){re.escape(name)}(?![A-Za-z0-9>])"), instead)
            for name in sorted(names, key=len, reverse=True)
            if len(name) >= SHORTEST_NAME and name.lower() not in EVERYONE
        ]
    return tuple(found)


def _users() -> set[str]:
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    with suppress(OSError, KeyError, ImportError):
        names.add(getpass.getuser())
    return names


def _hosts() -> set[str]:
    whole = socket.gethostname()
    return {whole, whole.partition(".")[0]}
