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


def tiny_tokenizer() -> Tokenizer:
    ranks = {bytes([i]): i for i in range(256)}
    for merge in (b"he", b"ll", b"hell", b"hello", b" w"):
        ranks[merge] = len(ranks)
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
    return Tokenizer(ranks, specials)
