"""The code behind records, in words: the checkout of a user's own model, and vbench's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SHORT = 12  # characters of a commit


def code(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each code once, a user's own first: "my_net at 0123456789ab with changes", "vbench at ...".

    Args:
        hosts: of records, as `vbench.host.fingerprint` makes them. What they do not say is left out.
    """
    every = list(hosts)
    ours = [f"vbench at {at(host)}" for host in every if host.get("commit")]
    return list(dict.fromkeys([*own_code(every), *ours]))


def own_code(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The checkouts of users' own models alone, as in `code`."""
    every = [(name, about) for host in hosts for name, about in (host.get("models") or {}).items()]
    return list(dict.fromkeys(_own(name, about) for name, about in every))


def at(about: Mapping[str, Any]) -> str:
    """ "0123456789ab with changes", from a `commit` and whether the tree was `dirty`."""
    return str(about["commit"])[:SHORT] + " with changes" * bool(about.get("dirty"))


def _own(model: str, about: Mapping[str, Any]) -> str:
    if about.get("commit"):
        return f"{about.get('repository') or model} at {at(about)}"
    return f"{model}, not in git" + (f", digest {about['source']}" if about.get("source") else "")
