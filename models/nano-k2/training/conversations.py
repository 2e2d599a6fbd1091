"""The mix of generated conversations, tokenized into files that training reads while more are being written.

Each file is reproducible from (seed, file number) alone: `ids` uint16 with bit 15 set on tokens that are learnt,
`lengths` int32 of its conversations, `kinds` uint8.

    python conversations.py --corpus CORPUS --model .. --out DIR --files 400 --workers 14
    python conversations.py --corpus CORPUS --model .. --show 20
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tiktoken

import arithmetic
import knowledge
import lookup
import practice
import smalltalk
import tokenizer
import toolcalls
import wordnet
from chat import Conversation, check_template, segments
from words import Words

LEARNT = 1 << 15
KINDS = ("tools", "chain", "missing", "unfitting", "unneeded", "arithmetic", "smalltalk", "knowledge", "lookup")


def plain(words: Words) -> Conversation:
    """A conversation without tools."""
    style = words.rng.random()
    if style < 0.34:
        return arithmetic.conversation(words)
    return smalltalk.conversation(words) if style < 0.64 else knowledge.conversation(words)


def conversation(words: Words, early: float = 0.0) -> Conversation:
    """By number: 46% with tools in use, 5% with tools that are not needed, 7% copying, the rest plain.

    `early` (1 at the very beginning of training, 0 later) puts copying in the place of that share of the others, up to half."""
    if words.chance(0.5 * early):
        return lookup.conversation(words)
    style = words.rng.random()
    if style < 0.46:
        return toolcalls.conversation(words)
    if style < 0.53:
        return lookup.conversation(words)
    return toolcalls.unneeded(words, plain(words)) if style < 0.58 else plain(words)


def second(words: Words) -> Conversation:
    """The second stage, by number: 54% with tools in use, 6% copying, 4% with tools that are not needed, 13% sums (two of five
    hard ones), the rest plain."""
    style = words.rng.random()
    if style < 0.54:
        return practice.conversation(words)
    if style < 0.60:
        return lookup.conversation(words)
    if style < 0.64:
        return toolcalls.unneeded(words, plain(words))
    if style < 0.77:
        return arithmetic.conversation(words, 0.4)
    return smalltalk.conversation(words) if style < 0.88 else knowledge.conversation(words)


def encode(conversation: Conversation, encoding: tiktoken.Encoding) -> np.ndarray:
    """uint16 ids with bit 15 on the learnt ones."""
    parts = []
    for text, learnt in segments(conversation):
        ids = np.array(encoding.encode(text, allowed_special="all"), dtype=np.uint16)
        parts.append(ids | LEARNT if learnt else ids)
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to write, and for which stage of training (the test split is of the first alone)."""

    corpus: Path
    model: Path
    out: Path
    seed: int
    size: int
    test: bool
    stage: str


def speaker(job: Job, number: int) -> Callable[[], Conversation]:
    """The conversations of one file. The first stage's first sixteen files are richer in copying."""
    lexicon, seed = wordnet.load(job.corpus / "lexicon.jsonl.xz"), job.seed * 100_003 + number
    if job.stage == "second":
        return functools.partial(second, practice.source(lexicon, seed, job.model))
    early = 0.0 if job.test else max(0.0, 1 - number / 16)
    return functools.partial(conversation, Words.of(lexicon, seed, test=job.test), early)


def write_file(job: Job, number: int) -> int:
    """Worker: one file of about `size` tokens."""
    os.nice(5)
    speak, encoding = speaker(job, number), tokenizer.load(job.model)
    chunks, kinds, total = [], [], 0
    while total < job.size:
        made = speak()
        ids = encode(made, encoding)
        if len(ids) <= 4096:
            chunks.append(ids)
            kinds.append(KINDS.index(made.kind))
            total += len(ids)
    temporary = job.out / f"tmp-{number:05}.npz"
    np.savez(temporary, ids=np.concatenate(chunks), lengths=np.array([len(c) for c in chunks], dtype=np.int32), kinds=np.array(kinds, dtype=np.uint8))
    temporary.rename(job.out / f"conv-{number:05}.npz")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--size", type=int, default=2_000_000, help="tokens a file")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="of the test split")
    parser.add_argument("--stage", choices=("first", "second"), default="first")
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    job = Job(corpus=args.corpus, model=args.model, out=args.out, seed=args.seed, size=args.size, test=args.test, stage=args.stage)
    if args.show:
        speak = speaker(job, 16)
        print(Counter(speak().kind for _ in range(2000)))
        shown = [speak() for _ in range(args.show)]
        check_template([speak() for _ in range(2000)] + shown, args.model)
        for each in shown:
            print(each.kind, "|", "".join(text for text, _ in segments(each)), "\n")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(args.workers) as pool:
        print(sum(pool.imap(functools.partial(write_file, job), range(args.files))), "tokens")


if __name__ == "__main__":
    main()
