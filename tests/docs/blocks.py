"""The code blocks of the README and of the documentation's pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.paths import REPO

PAGES = [
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    REPO / "naturelm/models/bundled/pocket/README.md",
    *sorted((REPO / "docs").rglob("*.md")),
]


class Block(NamedTuple):
    """A fenced block: its language as written, its text, and the line it starts on."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE)
    return [Block(match[2], match[3], text[: match.start()].count("\n") + 1) for match in found]


def name(page: Path) -> str:
    """A page's path, for the names of tests."""
    return page.relative_to(REPO).as_posix()
