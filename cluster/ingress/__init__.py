"""The HTTP front: Ray Serve and its HAProxy."""
