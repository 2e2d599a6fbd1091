"""Rules about the source tree itself that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGES = (
    *("kimi_k2", "wire", "experts_service", "router_service", "gateway", "cluster"),
    "monitoring",
)
GENERATED = ("wire/generated",)
MOST_LINES = 300


def sources(root: Path) -> list[Path]:
    """Every hand-written module of the packages, relative to `root`."""
    found = [path.relative_to(root) for name in PACKAGES for path in (root / name).rglob("*.py")]
    return sorted(path for path in found if not path.as_posix().startswith(GENERATED))


def may_import_ray(path: Path) -> bool:
    """Ray is wrapped in the files whose names the architecture page gives, and only there."""
    return (
        path.name == "actor.py"
        or path == Path("gateway/app.py")
        or (path.parts[0] == "cluster" and path.name.startswith("launch"))
    )


def imported(module: ast.Module) -> set[str]:
    """Top-level names of the packages that `module` imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_tree_is_found(repository: Path) -> None:
    assert Path("monitoring/metrics.py") in sources(repository)
    assert not any("generated" in path.parts for path in sources(repository))


def test_files_stay_short(repository: Path) -> None:
    lengths = {
        path.as_posix(): len((repository / path).read_text(encoding="utf-8").splitlines())
        for path in sources(repository)
    }
    assert not {path: lines for path, lines in lengths.items() if lines > MOST_LINES}


def test_ray_is_imported_only_where_it_is_wrapped(repository: Path) -> None:
    offenders = [
        path.as_posix()
        for path in sources(repository)
        if "ray" in imported(ast.parse((repository / path).read_text(encoding="utf-8")))
        and not may_import_ray(path)
    ]
    assert not offenders


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("cluster/actor.py", True),
        ("experts_service/actor.py", True),
        ("gateway/app.py", True),
        ("cluster/launch.py", True),
        ("cluster/launch_workers.py", True),
        ("router_service/app.py", False),
        ("router_service/launch.py", False),
        ("cluster/controller.py", False),
    ],
)
def test_where_ray_may_be_wrapped(path: str, allowed: bool) -> None:
    assert may_import_ray(Path(path)) is allowed


def test_every_package_is_typed(repository: Path) -> None:
    assert not [name for name in PACKAGES if not (repository / name / "py.typed").is_file()]
