"""The pages agree with the tree: links lead somewhere, quoted files are quoted as they are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.markdown import anchors

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def pages(root: Path) -> list[Path]:
    """Hand-written Markdown of the repository."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def test_every_relative_link_leads_somewhere(repository: Path) -> None:
    broken = []
    for page in pages(repository):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target, _, fragment = link.partition("#")
            if "://" in link:
                continue
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (
                fragment and path.suffix == ".md" and fragment not in anchors(path)
            ):
                broken.append(f"{page.relative_to(repository)}: {link}")
    assert not broken


def test_the_configuration_page_quotes_the_example(repository: Path) -> None:
    page = (repository / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = (repository / "cluster" / "example.yaml").read_text(encoding="utf-8")
    assert f"```yaml\n{example}```\n" in page, "docs/configuration.md quotes an older example.yaml"


def test_every_decision_is_listed(repository: Path) -> None:
    folder = repository / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in folder.glob("0*.md") if f"({path.name})" not in index]


@pytest.mark.parametrize("target", ["help", "serve", "test", "check", "protos", "clean"])
def test_the_makefile_explains_its_targets(repository: Path, target: str) -> None:
    shown = subprocess.run(
        ["make", "-C", str(repository), "help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"make {target} " in shown.stdout
