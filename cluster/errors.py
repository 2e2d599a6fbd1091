"""What can go wrong before and while a cluster runs, as the person at the terminal sees it.

`exit_code` is what `orrery` ends with: 2 when the request itself cannot be served as written
(flags, config, a model directory that is not there), 1 when it could have been but failed.
"""

from __future__ import annotations


class ClusterError(Exception):
    """Base: the message says what happened and what to do, and needs no traceback."""

    exit_code = 1


class ConfigError(ClusterError):
    """A config file, a flag or a named path that cannot be used as written."""

    exit_code = 2


class PlanError(ConfigError):
    """No placement satisfies the request, e.g. the experts do not fit in memory."""


class PreflightError(ClusterError):
    """This machine cannot start the cluster now: a port is taken, the checkpoint is broken."""


class StartError(ClusterError):
    """The cluster started to come up and did not get there."""


class NotRunningError(ClusterError):
    """No orrery answers where the run file says, or there is no run file."""
