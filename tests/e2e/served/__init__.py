"""Tests of one server. A package, since its fixtures are to end with it."""
