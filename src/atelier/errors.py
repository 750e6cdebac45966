"""The one exception that a user is meant to read, and the hint that goes with a misspelt name."""

from collections.abc import Iterable
from difflib import get_close_matches


class AtelierError(Exception):
    """Says in one line what is wrong, where, and what to do. The command line prints it and exits with 2."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A clause for an error message: the nearest allowed name, if one is near, and all of them."""
    names = sorted(str(a) for a in allowed)
    close = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}({', '.join(names) or 'none are defined'})"
