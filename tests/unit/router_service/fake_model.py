"""A model whose next token is a function of the tokens that its KV cache holds.

It has no arithmetic, so it is fast, and any mistake with blocks changes its logits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from kimi_k2.batch import ForwardResult, MicroBatch
from monitoring.metrics import RouterMetrics
from router_service.config import EngineConfig
from router_service.engine import Engine
from router_service.outputs import RequestOutput
from router_service.request import Request
from router_service.request_stream import RequestStream
from router_service.sampling import SamplingParams
from router_service.telemetry import Telemetry

VOCAB = 50
EOS = 1
BLOCK = 64
VOID = -7


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    vocab_size: int = VOCAB
    max_position_embeddings: int = 4096
    eos_token_ids: tuple[int, ...] = (EOS,)


class FakeExperts:
    """Token t needs expert t of layer 1; experts in `dead` have no live copy."""

    def __init__(self) -> None:
        self.dead: set[int] = set()

    def is_live(self, layer: int, expert: int) -> bool:
        return expert not in self.dead

    async def dispatch(self, *_: object) -> object:
        raise AssertionError("the fake model does not dispatch")


class FakeModel:
    """`forward` suspends `pauses` times; `before` may raise or wait."""

    def __init__(self, *, pauses: int = 2, max_positions: int = 4096) -> None:
        self.config = FakeConfig(max_position_embeddings=max_positions)
        self.pauses = pauses
        self.before: Callable[[MicroBatch], None] = lambda batch: None
        self.gate: asyncio.Event | None = None
        self.in_flight = 0
        self.most_in_flight = 0
        self.batches: list[MicroBatch] = []
        self.wiped: list[int] = []

    def new_cache(self, num_blocks: int) -> torch.Tensor:
        return torch.full((num_blocks, BLOCK), VOID)

    def wipe(self, cache: torch.Tensor, block: int) -> None:
        cache[block] = VOID
        self.wiped.append(block)

    async def forward(
        self, batch: MicroBatch, cache: torch.Tensor, experts: FakeExperts
    ) -> ForwardResult:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.batches.append(batch)
        try:
            self.before(batch)
            if self.gate is not None:
                await self.gate.wait()
            for _ in range(self.pauses):
                await asyncio.sleep(0)
            return self._compute(batch, cache, experts)
        finally:
            self.in_flight -= 1

    def _compute(
        self, batch: MicroBatch, cache: torch.Tensor, experts: FakeExperts
    ) -> ForwardResult:
        missing: dict[int, tuple[int, int]] = {}
        logits = []
        for segment in batch.segments:
            void = False
            for offset in range(segment.length):
                row, position = segment.start + offset, segment.position + offset
                token = int(batch.token_ids[row])
                if token in experts.dead:
                    missing[row] = (1, token)
                    void = True
                place = segment.block_table[position // BLOCK], position % BLOCK
                cache[place] = VOID if void else token
                if row in batch.logit_rows:
                    table = list(segment.block_table)
                    seen = cache[table].flatten()[: position + 1].tolist()
                    logits.append(next_logits(seen))
        stacked = np.stack(logits) if logits else np.empty((0, VOCAB), dtype=np.float32)
        return ForwardResult(logits=torch.from_numpy(stacked), missing=missing)


def next_logits(tokens: Iterable[int]) -> np.ndarray:
    """[VOCAB] float32 that depend on every token before."""
    digest = hashlib.blake2b(repr(list(tokens)).encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    return (generator.standard_normal(VOCAB) * 3).astype(np.float32)


def engine(
    model: FakeModel | None = None, experts: FakeExperts | None = None, **config: object
) -> Engine:
    return Engine(
        model or FakeModel(),
        experts or FakeExperts(),
        FakeDetokenizer,
        EngineConfig(**config),  # type: ignore[arg-type]
        Telemetry(RouterMetrics(CollectorRegistry())),
    )


class FakeDetokenizer:
    """Token t is the letter number t."""

    def push(self, ids: Iterable[int]) -> str:
        return "".join(letter(token) for token in ids)


def letter(token: int) -> str:
    return chr(ord("A") + token)


def request(prompt: Iterable[int], request_id: str = "r", **sampling: object) -> Request:
    outputs = sampling.pop("outputs", ())
    timeout = sampling.pop("timeout_s", None)
    fields = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True, **sampling}
    return Request(
        request_id=request_id,
        prompt_token_ids=tuple(prompt),
        output_token_ids=tuple(outputs),  # type: ignore[arg-type]
        sampling=SamplingParams(**fields),  # type: ignore[arg-type]
        timeout_s=timeout,  # type: ignore[arg-type]
    )


async def collect(stream: RequestStream) -> list[RequestOutput]:
    """All outputs; exactly the last one has a finish reason."""
    outputs = [output async for output in stream]
    assert [output.finish_reason is None for output in outputs[:-1]] == [True] * (len(outputs) - 1)
    assert outputs[-1].finish_reason is not None
    return outputs


async def tokens_of(stream: RequestStream) -> list[int]:
    return [token for output in await collect(stream) for token in output.token_ids]


def expected_greedy(prompt: Iterable[int], count: int) -> list[int]:
    """What greedy decoding gives, computed without an engine."""
    tokens = list(prompt)
    start = len(tokens)
    for _ in range(count):
        tokens.append(int(np.argmax(next_logits(tokens))))
    return tokens[start:]
