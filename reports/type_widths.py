"""How wide a text is in print, in points: enough to know that a table fits its column before TeX sets it.

Each width is the greater of two fonts, Computer Modern (T1) and Times. Most documents of two columns have one of them.
"""

from __future__ import annotations

from functools import lru_cache

_WIDTHS = {  # thousandths of an em, at 10 pt -> the characters of that width
    278: ",.:;il|",
    305: "j",
    333: "!'’-[]`f·⁹⁶₂",
    361: "I",
    389: "()t",
    392: "rs",
    444: "cez",
    472: "?",
    500: '"$*/0123456789\\ago{}–',
    528: "kqvxy",
    556: "JSbdhnpu",
    611: "Z^~",
    653: "FL",
    680: "EP",
    722: "BCTw",
    764: "ADHNRUVXY",
    778: "&+<=>GKOQ_×−±≥≤",
    833: "#%m",
    921: "M@",
    1028: "W—…→",
}
_EM = {char: width / 1000 for width, chars in _WIDTHS.items() for char in chars}
_SPACE, _OTHER = 0.34, 1.0  # em; of letters with accents, and of what is printed as a code point, see `em`
_SMALLER = {8.0: 1.07, 7.0: 1.15, 6.0: 1.24}  # size in pt -> how much wider an em's worth is than at 10 pt
BOLD = 1.17
RAISED = 0.75  # the size of a superscript over that of its text


@lru_cache(maxsize=2**16)
def points(text: str, size: float, *, bold: bool = False) -> float:
    """The width of one line of text in pt, at a type size of 8, 7 or 6 pt."""
    return sum(map(_em, text)) * size * _SMALLER[size] * (BOLD if bold else 1.0)


def _em(char: str) -> float:
    if char == " ":
        return _SPACE
    if char in _EM:
        return _EM[char]
    return _OTHER if "À" <= char <= "ÿ" else 6.0  # printed as [U+4E2D]


def broken(text: str, width: float, size: float) -> list[str]:
    """A text in lines of at most `width` pt: at spaces, and within a longer word behind one of "_.:/-", or anywhere."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and points(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _pieces(word, width, size)
    return lines or [""]


def _pieces(word: str, width: float, size: float) -> list[str]:
    """One word in lines: whole if it fits."""
    found = []
    while points(word, size) > width and len(word) > 1:
        fits = next((at for at in range(len(word) - 1, 1, -1) if points(word[:at], size) <= width), 1)
        ends = [at for at in range(2, fits + 1) if word[at - 1] in "_.:/-"]
        at = ends[-1] if ends else fits
        found.append(word[:at])
        word = word[at:]
    return [*found, word]
