"""The processes that the controller keeps: how they are set up, started and ended."""
