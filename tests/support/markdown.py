"""What a Markdown page holds, for tests that follow links or run commands."""

from __future__ import annotations

import re
from pathlib import Path

_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    found = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def commands(page: Path) -> list[str]:
    """Every command of the page's shell blocks, lines that a backslash continues joined."""
    lines: list[str] = []
    for block in _SHELL.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            bare = re.sub(r"\s+#\s.*$", "", line).strip()
            if bare and not bare.startswith("#"):
                lines.append(re.sub(r"\s+", " ", bare))
    return lines
