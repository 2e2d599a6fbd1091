"""The Grafana dashboards as code: tables of panels, made into Grafana's JSON.

A panel is one `Panel(...)` in `serving` or `experts`; then `python -m monitoring.dashboards` writes
the JSON files anew. A test holds both together, and asks a live cluster every query.
"""
