"""The mix of generated conversations, tokenized into files that training reads while more are being written.

Each file is reproducible from (seed, file number) alone: `ids` uint16 with bit 15 set on tokens that are learnt,
`lengths` int32 of its conversations, `kinds` uint8.

    python conversations.py --corpus CORPUS --model .. --out DIR --files 400 --workers 14
    python conversations.py --corpus CORPUS --model .. --show 20
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections import Counter
from pathlib import Path

import numpy as np
import tiktoken

import arithmetic
import knowledge
import lookup
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


def encode(conversation: Conversation, encoding: tiktoken.Encoding) -> np.ndarray:
    """uint16 ids with bit 15 on the learnt ones."""
    parts = []
    for text, learnt in segments(conversation):
        ids = np.array(encoding.encode(text, allowed_special="all"), dtype=np.uint16)
        parts.append(ids | LEARNT if learnt else ids)
    return np.concatenate(parts)


def write_file(job: tuple[Path, Path, Path, int, int, int, bool]) -> int:
    """Worker: one file of about `size` tokens. The first sixteen files are richer in copying."""
    corpus, model, out, seed, number, size, test = job
    os.nice(5)
    words = Words.of(wordnet.load(corpus / "lexicon.jsonl.xz"), seed * 100_003 + number, test=test)
    encoding = tokenizer.load(model)
    chunks, kinds, total = [], [], 0
    while total < size:
        made = conversation(words, 0.0 if test else max(0.0, 1 - number / 16))
        ids = encode(made, encoding)
        if len(ids) <= 4096:
            chunks.append(ids)
            kinds.append(KINDS.index(made.kind))
            total += len(ids)
    temporary = out / f"tmp-{number:05}.npz"
    np.savez(temporary, ids=np.concatenate(chunks), lengths=np.array([len(c) for c in chunks], dtype=np.int32), kinds=np.array(kinds, dtype=np.uint8))
    temporary.rename(out / f"conv-{number:05}.npz")
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
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    if args.show:
        words = Words.of(wordnet.load(args.corpus / "lexicon.jsonl.xz"), args.seed, test=False)
        print(Counter(conversation(words).kind for _ in range(2000)))
        shown = [conversation(words) for _ in range(args.show)]
        check_template([conversation(words) for _ in range(2000)] + shown, args.model)
        for each in shown:
            print(each.kind, "|", "".join(text for text, _ in segments(each)), "\n")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(args.corpus, args.model, args.out, args.seed, number, args.size, args.test) for number in range(args.files)]
    with multiprocessing.Pool(args.workers) as pool:
        print(sum(pool.imap(write_file, jobs)), "tokens")


if __name__ == "__main__":
    main()
