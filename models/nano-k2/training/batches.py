"""Packed training batches: text and conversations, whole documents end to end, boundaries kept.

A batch is one flat row of a fixed number of tokens. Documents never see each other; positions restart with each.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import lzma
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tokenizer
import wordnet
from conversations import LEARNT

MAX_DOCUMENTS = 2048


@dataclass(frozen=True, kw_only=True)
class Batch:
    """ids, targets int64 [T]; learnt float32 [T] (weight of each target); positions [T]; cu int32 [MAX + 1], padded."""

    ids: Tensor
    targets: Tensor
    learnt: Tensor
    positions: Tensor
    cu: Tensor


def held_out(text: str) -> bool:
    """One document in a hundred is never trained on."""
    return hashlib.blake2b(text[:2000].encode(), digest_size=1).digest()[0] < 3


def tokenize_domain(job: tuple[Path, Path]) -> tuple[str, list[np.ndarray], list[np.ndarray]]:
    """Worker: (domain, training documents, held-out documents) as uint16 ids between [BOS] and [EOS]."""
    path, model = job
    encoding = tokenizer.load(model)
    bos, eos = encoding.encode("[BOS][EOS]", allowed_special="all")
    if path.name.startswith("lexicon"):
        entries = wordnet.load(path)
        order = np.random.default_rng(5).permutation(len(entries))
        texts = ["\n\n".join(wordnet.prose(entries[i]) for i in order[at : at + 12]) for at in range(0, len(order), 12)]
    else:
        texts = lzma.decompress(path.read_bytes()).decode().split("\f")
    train, test = [], []
    for text in texts:
        ids = np.array([bos, *encoding.encode_ordinary(text), eos], dtype=np.uint16)
        (test if held_out(text) else train).append(ids)
    return path.name.split(".")[0], train, test


def tokenize_corpus(corpus: Path, model: Path, workers: int) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Training and held-out documents by domain."""
    jobs = [(path, model) for path in sorted(corpus.glob("*.xz"), key=lambda p: -p.stat().st_size)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        rows = list(pool.imap_unordered(tokenize_domain, jobs))
    rows.sort(key=lambda row: row[0])
    return {name: train for name, train, _ in rows}, {name: test for name, _, test in rows}


def load_corpus(path: Path) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Training and held-out documents as `main` wrote them."""
    data, out = np.load(path), ({}, {})
    for part, documents in zip(("train", "test"), out, strict=True):
        for name in sorted({key.split("/")[1] for key in data.files if key.startswith(part)}):
            documents[name] = np.split(data[f"{part}/{name}/ids"], data[f"{part}/{name}/lengths"].cumsum()[:-1])
    return out


def main() -> None:
    """Tokenize the corpus once for all runs: python batches.py --corpus CORPUS --model .. --out text.npz"""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("--corpus", "--model", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--workers", type=int, default=cores())
    args = parser.parse_args()
    arrays = {}
    for part, documents in zip(("train", "test"), tokenize_corpus(args.corpus, args.model, args.workers), strict=True):
        for name, rows in documents.items():
            if rows:
                arrays[f"{part}/{name}/ids"] = np.concatenate(rows)
                arrays[f"{part}/{name}/lengths"] = np.array([len(row) for row in rows])
    temporary = args.out.with_suffix(".tmp.npz")
    np.savez(temporary, **arrays)
    temporary.rename(args.out)
    print({key: len(value) for key, value in arrays.items() if key.endswith("ids")})


def text_stream(documents: dict[str, list[np.ndarray]], seed: int) -> Iterator[np.ndarray]:
    """Chunks of up to 4,096 tokens, epoch after epoch; the dictionary and small domains come as often as they are."""
    rng = np.random.default_rng(seed)
    every = [ids for name in sorted(documents) for ids in documents[name]]
    while True:
        chunks = []
        for ids in every:
            size = int(rng.choice((1024, 2048, 4096)))
            begin = int(rng.integers(0, size)) if len(ids) > size else 0
            cuts = [0, *range(begin or size, len(ids), size), len(ids)]
            chunks += [ids[a:b] for a, b in itertools.pairwise(cuts) if b - a > 16]
        for index in rng.permutation(len(chunks)):
            yield chunks[index]


def conversation_stream(folder: Path, patience_s: float, rank: int, ranks: int) -> Iterator[np.ndarray]:
    """This rank's files (every `ranks`-th) in order of number; the first is waited for at length, a later one for
    `patience_s`, and if it does not come, one that was read before is read again."""
    number, rng = rank, np.random.default_rng(rank)
    while True:
        path, waited = folder / f"conv-{number:05}.npz", 0.0
        while not path.exists() and waited < (patience_s if number > rank else 300.0):
            time.sleep(0.05)
            waited += 0.05
        if path.exists():
            number += ranks
        else:
            path = folder / f"conv-{rank + ranks * int(rng.integers(0, number // ranks)):05}.npz"
        data = np.load(path)
        ends = data["lengths"].cumsum()
        ids = data["ids"]
        for begin, end in zip(ends - data["lengths"], ends, strict=True):
            yield ids[begin:end]


def pack(text: Iterator[np.ndarray], chat: Iterator[np.ndarray], share: float, size: int, rng: np.random.Generator, emphasis: float = 1.0) -> Batch:
    """`size` tokens of which about `share` are conversations. In text every token is learnt, with weight 1; what is
    learnt of conversations has the weight `emphasis`."""
    parts: list[np.ndarray] = []
    weights: list[float] = []
    total, chat_total = 0, 0
    while total < size + 1 and len(parts) < MAX_DOCUMENTS:
        wanted = chat_total < share * total if total else rng.random() < share
        ids = next(chat) if wanted else next(text) | LEARNT
        ids = ids[: size + 1 - total]
        chat_total += len(ids) if wanted else 0
        total += len(ids)
        parts.append(ids)
        weights.append(emphasis if wanted else 1.0)
    flat = np.concatenate(parts).astype(np.int64)
    flat = np.pad(flat, (0, max(0, size + 1 - len(flat))))
    lengths = np.array([len(p) for p in parts])
    starts = np.concatenate(([0], lengths.cumsum()))
    cu = np.minimum(starts, size)
    cu[-1] = size
    positions = np.arange(size) - np.repeat(cu[:-1], np.diff(cu))
    weight = np.pad(np.repeat(np.array(weights, dtype=np.float32), lengths), (0, max(0, size + 1 - total)))
    learnt = (flat[1:] & LEARNT > 0) * weight[1:]
    firsts = starts[1:-1] - 1
    learnt[firsts[firsts < size]] = 0
    padded = np.full(MAX_DOCUMENTS + 1, size, dtype=np.int32)
    padded[: len(cu)] = cu
    ids = flat & (LEARNT - 1)
    as_tensor = torch.from_numpy
    return Batch(
        ids=as_tensor(ids[:-1].copy()),
        targets=as_tensor(ids[1:].copy()),
        learnt=as_tensor(learnt),
        positions=as_tensor(positions),
        cu=as_tensor(padded),
    )


def prefetch(make: Callable[[], Batch], device: torch.device, depth: int = 6) -> Iterator[Batch]:
    """Batches made in a thread, already on their way to the device."""
    ready: queue.Queue[Batch] = queue.Queue(depth)

    def work() -> None:
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        while True:
            batch = make()
            if device.type == "cuda":
                batch = Batch(**{k: v.pin_memory().to(device, non_blocking=True) for k, v in vars(batch).items()})
            ready.put(batch)

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield ready.get()


def cores() -> int:
    return max(1, (os.cpu_count() or 2) - 2)


if __name__ == "__main__":
    main()
