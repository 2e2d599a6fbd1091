"""Other engines, each driven in a process of its own."""
