"""A request on its way through the engine."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from router_service.outputs import Ending, OutputSink, RequestOutput, TokenLogprobs
from router_service.prefix_cache import ROOT
from router_service.request import Request
from router_service.stop_checker import StopChecker


class Sequence:
    """The mutable state of one request.

    number: order of arrival; the higher, the younger.
    tokens: prompt and outputs.
    computed: tokens whose keys are valid in the KV cache.
    block_table: KV blocks that cover at least `computed` positions.
    block_hashes: names of the full blocks that are valid, in order.
    block_names: names of its first full blocks, valid or not, as far as they have been asked for;
        tokens are only ever appended, so they stay. names_root: what the first one follows; see
        `KVCache.distrust`.
    in_flight: inside a micro-batch now, so that its blocks must not be given away.
    missing: the (layer, expert) that it is parked for.
    """

    def __init__(
        self, *, number: int, request: Request, sink: OutputSink, stops: StopChecker, now: float
    ) -> None:
        self.number = number
        self.request = request
        self.sink = sink
        self.stops = stops
        self.tokens: list[int] = [*request.prompt_token_ids, *request.output_token_ids]
        self.output_counts: Counter[int] = Counter(request.output_token_ids)
        self.computed = 0
        self.block_table: list[int] = []
        self.block_hashes: list[bytes] = []
        self.block_names: list[bytes] = []
        self.names_root = ROOT
        self.in_flight = False
        self.finished = False
        self.missing: tuple[int, int] | None = None
        self.parked_at: float | None = None
        self.last_step = -1
        self.cached_tokens: int | None = None
        self.arrived_at = now
        self.scheduled_at: float | None = None
        self.last_token_at: float | None = None

    @cached_property
    def prompt_ids(self) -> frozenset[int]:
        """Made on demand: only a repetition penalty asks for it."""
        return frozenset(self.request.prompt_token_ids)

    @property
    def prompt_length(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def output_length(self) -> int:
        """Tokens generated, those of an earlier router included."""
        return len(self.tokens) - len(self.request.prompt_token_ids)

    @property
    def uncomputed(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        return len(self.tokens) - self.computed == 1

    @property
    def parked(self) -> bool:
        return self.missing is not None

    def append(self, token: int) -> None:
        self.tokens.append(token)
        self.output_counts[token] += 1

    def output(
        self,
        *,
        token: int | None = None,
        logprobs: TokenLogprobs | None = None,
        ending: Ending | None = None,
    ) -> RequestOutput:
        """An output of this request, with its next token, its ending or both."""
        return RequestOutput(
            request_id=self.request.request_id,
            token_ids=() if token is None else (token,),
            logprobs=() if logprobs is None else (logprobs,),
            finish_reason=ending.reason if ending else None,
            stop_reason=ending.stop_reason if ending else "",
            error=ending.error if ending else None,
            prompt_tokens=self.prompt_length,
            cached_tokens=self.cached_tokens or 0,
        )
