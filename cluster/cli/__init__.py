"""The command `orrery`, one module a subcommand."""

from cluster.cli.main import main

__all__ = ["main"]
