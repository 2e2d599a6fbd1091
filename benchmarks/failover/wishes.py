"""What clients ask for while things fail: seeded, so that every run asks for the same."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.serving.arguments import NANO
from kimi_k2.config import ModelConfig
from wire.generated import orrery_pb2 as pb

SEED = 20
CLIENTS = 16
# Ids above belong to control tokens in nano-K2.
_ORDINARY = 0.9
_LEAST_PROMPT, _MOST_PROMPT = 8, 200


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A prompt and how its answer is drawn; every answer to it begins with the same tokens.

    temperature: 0: greedy, else drawn with the seed.
    """

    prompt: tuple[int, ...]
    seed: int
    temperature: float

    def submit(self, request_id: str, tokens: int) -> pb.Submit:
        return pb.Submit(
            request_id=request_id,
            prompt_token_ids=self.prompt,
            sampling=pb.SamplingParams(
                temperature=self.temperature,
                top_p=1.0,
                repetition_penalty=1.0,
                seed=self.seed,
                max_tokens=tokens,
                ignore_eos=True,
            ),
        )

    @property
    def key(self) -> str:
        """Of the retries of a request without a seed."""
        return f"wish-{self.seed}"

    def body(self, model: str, tokens: int, *, seeded: bool = True) -> dict[str, object]:
        """For `/v1/completions`; without a seed the gateway draws one for the key."""
        return {
            "model": model,
            "prompt": list(self.prompt),
            "max_tokens": tokens,
            "temperature": self.temperature,
            **({"seed": self.seed} if seeded else {}),
            "ignore_eos": True,
            "logprobs": 0,
            "stream": True,
        }


def wishes(number: int = CLIENTS, seed: int = SEED) -> tuple[Wish, ...]:
    """Every second one is greedy; nano-K2's tokens."""
    draw = random.Random(seed)
    highest = int(ModelConfig.from_dir(NANO).vocab_size * _ORDINARY)
    return tuple(
        Wish(
            prompt=tuple(
                draw.randrange(highest) for _ in range(draw.randint(_LEAST_PROMPT, _MOST_PROMPT))
            ),
            seed=draw.getrandbits(32),
            temperature=float(place % 2),
        )
        for place in range(number)
    )
