"""How often each expert is chosen, by layer and by domain: the traces that planners and benchmarks use.

`expert_loads.json`: `layers` (indices of the MoE layers), `experts`, `top_k`, `tokens` {domain: tokens} and `loads`
{domain: [layer][expert] -> times chosen}. Each layer's loads of a domain sum to tokens x top_k. Domains: chat
(conversations without tools), tools (conversations with tools in use), code (fenced code of held-out documentation)
and docs (its prose). All of it is held out of training.

    python loads.py --model .. --corpus CORPUS --out ../expert_loads.json
    python loads.py --plot ../expert_loads.json --out ../expert_loads.png
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import torch

import arithmetic
import knowledge
import smalltalk
import tokenizer
import toolcalls
import wordnet
from batches import held_out
from chat import segments
from evaluate import load_model
from words import Words

FENCE = re.compile(r"```\n(.*?)```", re.DOTALL)


def texts_of(corpus: Path) -> dict[str, Iterator[str]]:
    """Endless or long streams of text of each domain."""
    words = Words.of(wordnet.load(corpus / "lexicon.jsonl.xz"), 11, test=True)

    def spoken(*sources: Any) -> Iterator[str]:
        while True:
            yield "".join(text for text, _ in segments(words.one(sources).conversation(words)))

    def documents() -> Iterator[str]:
        for path in sorted(corpus.glob("*.txt.xz")):
            yield from (text for text in lzma.decompress(path.read_bytes()).decode().split("\f") if held_out(text))

    code = ("\n\n".join(FENCE.findall(text)) for text in documents())
    prose = (FENCE.sub("", text) for text in documents())
    return {"chat": spoken(smalltalk, knowledge, arithmetic), "tools": spoken(toolcalls), "code": code, "docs": prose}


@torch.no_grad()
def count(folder: Path, corpus: Path, limit: int, device: torch.device) -> dict[str, Any]:
    """Loads of about `limit` tokens of each domain, 1,024 at most of one document."""
    model, encoding = load_model(folder, device), tokenizer.load(folder)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokens, loads = {}, {}
    for domain, texts in texts_of(corpus).items():
        total, done = torch.zeros(len(model.experts()), model.config.n_routed_experts, dtype=torch.int64, device=device), 0
        for batch in packs(texts, encoding, limit):
            ids = torch.from_numpy(np.concatenate(batch).astype(np.int64)).to(device)
            lengths = torch.tensor([0, *map(len, batch)], device=device)
            positions = torch.cat([torch.arange(len(part), device=device) for part in batch])
            _, load = model.hidden(ids, positions, lengths.cumsum(0).to(torch.int32), 1024, dtype)
            total += load
            done += len(ids)
        tokens[domain], loads[domain] = done, total.tolist()
    layers = [i for i, block in enumerate(model.layers) if block.mlp in model.experts()]
    return {"layers": layers, "experts": model.config.n_routed_experts, "top_k": model.config.num_experts_per_tok, "tokens": tokens, "loads": loads}


def packs(texts: Iterator[str], encoding: tiktoken.Encoding, limit: int) -> Iterator[list[np.ndarray]]:
    """Documents cut to 1,024 tokens, some 16,384 tokens a batch, until `limit` is reached or the texts end."""
    batch: list[np.ndarray] = []
    total = 0
    for text in texts:
        ids = np.array(encoding.encode(text[:8000], allowed_special="all")[:1024], dtype=np.uint16)
        if len(ids) < 16:
            continue
        batch.append(ids)
        total += len(ids)
        if sum(map(len, batch)) > 16_384 or total >= limit:
            yield batch
            batch = []
        if total >= limit:
            return
    if batch:
        yield batch


def plot(recorded: dict[str, Any], path: Path) -> None:
    """Layer x expert heat map of each domain, as multiples of the mean; experts in the order of their load in docs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    loads = {domain: np.array(rows, dtype=float) for domain, rows in recorded["loads"].items()}
    order = np.argsort(-loads["docs"], axis=1)
    figure, axes = plt.subplots(len(loads), 1, figsize=(11, 1.5 * len(loads) + 1), sharex=True, layout="constrained")
    for axis, (domain, rows) in zip(axes, loads.items(), strict=True):
        relative = np.take_along_axis(rows / rows.mean(axis=1, keepdims=True), order, axis=1)
        image = axis.imshow(relative, aspect="auto", vmin=0, vmax=4, cmap="viridis", interpolation="nearest")
        axis.set_yticks(range(len(recorded["layers"])), [f"layer {i}" for i in recorded["layers"]])
        axis.set_title(f"{domain}: {recorded['tokens'][domain]:,} tokens, largest {relative.max():.1f} times the mean", fontsize=9, loc="left")
    axes[-1].set_xlabel("experts of each layer, by their load in docs")
    figure.colorbar(image, ax=axes, label="load / mean")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path, help="a recorded file to draw")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.plot:
        plot(json.loads(args.plot.read_text()), args.out)
        return
    if args.model is None or args.corpus is None:
        parser.error("--model and --corpus are needed")
    recorded = count(args.model, args.corpus, args.tokens, torch.device(args.device))
    args.out.write_text(json.dumps(recorded, separators=(",", ":")) + "\n")
    for domain, rows in recorded["loads"].items():
        peaks = [round(max(row) / (sum(row) / len(row)), 2) for row in rows]
        print(f"{domain:6} {recorded['tokens'][domain]:8} tokens, busiest / mean {peaks}, never chosen {[row.count(0) for row in rows]}")


if __name__ == "__main__":
    main()
