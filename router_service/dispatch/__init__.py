"""The dispatcher: rows to expert workers, expert rows back."""

from router_service.dispatch.options import DispatchOptions
from router_service.dispatch.remote_experts import RemoteExperts

__all__ = ["DispatchOptions", "RemoteExperts"]
