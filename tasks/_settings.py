"""Environment variables, as env files and secrets give them."""

from __future__ import annotations

import os


def setting(name: str, default: str = "") -> str:
    """Return a variable without the blanks, line ends and quotes that surround it."""
    text = os.environ.get(name, "").strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    return text or default
