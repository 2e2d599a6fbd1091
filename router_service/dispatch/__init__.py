"""The dispatcher: rows to expert workers, expert rows back."""

from router_service.dispatch.known_answers import KnownAnswers, known_answers
from router_service.dispatch.remote_experts import RemoteExperts
from router_service.dispatch_options import DispatchOptions

__all__ = ["DispatchOptions", "KnownAnswers", "RemoteExperts", "known_answers"]
