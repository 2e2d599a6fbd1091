"""Orrery's tests: unit, integration, parity with other implementations, and end to end."""
