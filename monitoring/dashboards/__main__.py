"""python -m monitoring.dashboards [FOLDER]: writes the JSON, by default where it is kept."""

from __future__ import annotations

import sys
from pathlib import Path

from monitoring.dashboards.boards import BOARDS
from monitoring.dashboards.grafana import to_json

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
for board in BOARDS:
    (folder / f"{board.uid}.json").write_text(to_json(board), encoding="utf-8")
