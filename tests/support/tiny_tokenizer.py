"""A tokenizer of bytes, a few merges and K2's control tokens."""

from __future__ import annotations

from kimi_k2.tokenizer import Tokenizer

SPECIALS = (
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<think>",
    "</think>",
)


_MERGES = (b"he", b"ll", b"hell", b"hello", b" w")
RANKS = {bytes([i]): i for i in range(256)} | {m: 256 + i for i, m in enumerate(_MERGES)}


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer(RANKS, {name: len(RANKS) + i for i, name in enumerate(SPECIALS)})
