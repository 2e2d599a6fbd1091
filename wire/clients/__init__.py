"""Typed clients of Orrery's gRPC services."""
