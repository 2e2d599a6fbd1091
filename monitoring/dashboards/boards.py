"""Every dashboard there is."""

from __future__ import annotations

from monitoring.dashboards.experts import EXPERTS
from monitoring.dashboards.serving import SERVING

BOARDS = (SERVING, EXPERTS)
