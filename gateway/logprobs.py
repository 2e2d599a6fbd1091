"""Log probabilities in the shapes of OpenAI's two APIs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kimi_k2.tokenizer import Tokenizer
from wire.generated import orrery_pb2 as pb

# What OpenAI gives for a token that cannot be; JSON has no infinity.
_IMPOSSIBLE = -9999.0


def chat_logprobs(tokenizer: Tokenizer, logprobs: Iterable[pb.TokenLogprobs]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat completion: every generated token, control tokens too."""
    return {
        "content": [
            {
                **_entry(tokenizer, item.token_id, item.logprob),
                "top_logprobs": [
                    _entry(tokenizer, index, value)
                    for index, value in zip(item.top_token_ids, item.top_logprobs, strict=True)
                ],
            }
            for item in logprobs
        ],
        "refusal": None,
    }


def _entry(tokenizer: Tokenizer, index: int, logprob: float) -> dict[str, Any]:
    data = _bytes(tokenizer, index)
    token = data.decode(errors="replace")
    return {"token": token, "logprob": _finite(logprob), "bytes": list(data)}


class CompletionLogprobs:
    """`choices[].logprobs` of a completion, piece by piece: offsets go on from piece to piece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0

    def push(self, logprobs: Iterable[pb.TokenLogprobs]) -> dict[str, Any]:
        """The object for these further tokens."""
        tokens: list[str] = []
        values: list[float] = []
        tops: list[dict[str, float]] = []
        offsets: list[int] = []
        for item in logprobs:
            text = token_text(self._tokenizer, item.token_id)
            tokens.append(text)
            values.append(_finite(item.logprob))
            tops.append(
                {
                    token_text(self._tokenizer, index): _finite(value)
                    for index, value in zip(item.top_token_ids, item.top_logprobs, strict=True)
                }
            )
            offsets.append(self._offset)
            if not self._tokenizer.is_special(item.token_id):
                self._offset += len(text)
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": offsets,
        }


def token_text(tokenizer: Tokenizer, index: int) -> str:
    """The token's text; a part of a character as OpenAI writes it, `bytes:\\xe4\\xb8`, so that
    different tokens stay different keys."""
    data = _bytes(tokenizer, index)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _bytes(tokenizer: Tokenizer, index: int) -> bytes:
    """Nothing for an id that only pads the model's vocabulary."""
    return tokenizer.decode_bytes((index,)) if index in tokenizer else b""


def _finite(logprob: float) -> float:
    return max(logprob, _IMPOSSIBLE)
