"""Train nano-K2, from nothing or from an exported checkpoint, with the clock as the schedule, and export it.

Progress p goes from 0 to 1 over `--seconds` (or `--steps`). Learning rate: warm-up, constant, then down to 2% from
`--decay-from` on. Share of conversations: rises with p. Routed experts are fake-quantized to INT4 from
`--quantize-from` on. Gate biases follow DeepSeek-V3: after each step plus or minus a constant, no loss for balance.

`--resume MODEL_DIR` is a second stage: its masters quantize to exactly the integers of the checkpoint, so with
`--quantize-from 0` nothing is lost. The gate's bias first settles to the new mix (`--settle` steps in which no weight
moves), and then follows each expert's excess instead of its sign, so that the busiest are held back four times as fast.

    python batches.py --corpus CORPUS --model .. --out WORK/text.npz
    python conversations.py --corpus CORPUS --model .. --out WORK/conversations --files 700 &
    torchrun --nproc-per-node 2 train.py --text WORK/text.npz --conversations WORK/conversations --model .. --work WORK --seconds 1100 --compile
    python train.py --text WORK/text.npz --conversations WORK/conversations --model .. --work WORK --steps 20 --batch 512 --device cpu
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import parallel
import tokenizer
from batches import Batch, conversation_stream, load_corpus, pack, prefetch, text_stream
from evaluate import load_model
from export import export
from model import Model, ModelConfig
from optimizer import Optimizer
from quantize import masters


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate, bias step and data mix by progress in [0, 1]."""

    lr: float
    decay_from: float
    quantize_from: float
    share_first: float
    share_last: float
    bias_step: float = 1e-3
    resumed: bool = False

    def rate(self, p: float, step: int) -> float:
        warm = min(1.0, (step + 1) / 200)
        fall = 1.0 if p < self.decay_from else max(0.02, 1 - math.sqrt((p - self.decay_from) / (1 - self.decay_from)))
        return self.lr * warm * fall

    def bias(self, p: float) -> float:
        """Five times as fast at first, while a new gate is still unsettled; slowing down with the learning rate."""
        if p < self.decay_from:
            return self.bias_step if self.resumed else self.bias_step * (1 + 4 * max(0.0, 1 - p / 0.15))
        return self.bias_step * max(0.05, 1 - (p - self.decay_from) / (0.9 - self.decay_from))

    def share(self, p: float) -> float:
        """Constant for a third, then rising to its last value at 85%."""
        return self.share_first + (self.share_last - self.share_first) * min(1.0, max(0.0, (p - 0.33) / 0.52))


def loss_of(model: Model, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss over learnt tokens, per-token losses [T], loads [layers, E]."""
    hidden, loads = model.hidden(batch.ids, batch.positions, batch.cu, 4096, dtype)
    losses = token_losses(hidden, model.lm_head, batch.targets)
    return (losses * batch.learnt).sum() / batch.learnt.sum().clamp_min(1), losses, loads


def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head.to(hidden.dtype)).float(), targets, reduction="none")


@torch.no_grad()
def balance(model: Model, loads: Tensor, step: float, proportional: bool = False) -> None:
    """DeepSeek-V3's aux-loss-free rule: overloaded experts lose a little bias, underloaded ones gain it. `proportional`:
    by their excess over the mean, up to four steps."""
    for layer, load in zip(model.experts(), loads, strict=True):
        excess = load.float() / load.float().mean() - 1
        layer.e_score_correction_bias -= step * (excess.clamp(-1, 4) if proportional else torch.sign(excess))


def settle(model: Model, steps: int, bias_step: float, loads_of: Callable[[], Tensor], note: Callable[..., None]) -> None:
    """Move the gate's bias alone until the loads suit the mix: the first third of the steps four times as fast."""
    model.set_quantize(True)
    for step in range(steps):
        loads = parallel.total(loads_of())
        balance(model, loads, bias_step * (4 if step < steps / 3 else 1), proportional=True)
        if step in (0, steps - 1):
            note(settled=step + 1, peak=[round((row.max() / row.float().mean()).item(), 2) for row in loads])


def save(model: Model, step: int, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "step": step}, temporary)
    temporary.rename(path)


@torch.no_grad()
def held_out_bits(model: Model, documents: dict[str, list[np.ndarray]], encoding_bytes: list[int], dtype: torch.dtype) -> dict[str, float]:
    """Bits per byte by domain on held-out documents (at most 60,000 tokens of each)."""
    device, result = model.lm_head.device, {}
    sizes = torch.tensor(encoding_bytes, device=device)
    for name, texts in documents.items():
        chunks = [ids[a : a + 4096] for ids in texts for a in range(0, len(ids), 4096) if len(ids[a : a + 4096]) > 16]
        bits, total = 0.0, 0
        for ids in chunks[:: max(1, len(chunks) // 20)][:24]:
            row = torch.from_numpy(ids.astype(np.int64)).to(device)
            cu = torch.tensor([0, len(row) - 1], dtype=torch.int32, device=device)
            hidden, _ = model.hidden(row[:-1], torch.arange(len(row) - 1, device=device), cu, 4096, dtype)
            losses = F.cross_entropy(model.logits(hidden).float(), row[1:], reduction="none")
            bits += losses.sum().item() / math.log(2)
            total += int(sizes[row[1:]].sum().item())
        if total:
            result[name] = round(bits / total, 4)
    return result


@torch.no_grad()
def conversation_loss(model: Model, folder: Path, size: int, dtype: torch.dtype) -> float:
    """Nats per learnt token on conversations of the test split (six batches)."""
    device, total, count = model.lm_head.device, 0.0, 0.0
    chat, rng = conversation_stream(folder, 0.1, 0, 1), np.random.default_rng(0)
    for _ in range(6):
        batch = pack(chat, chat, 2.0, size, rng)
        batch = Batch(**{name: tensor.to(device) for name, tensor in vars(batch).items()})
        loss, _, _ = loss_of(model, batch, dtype)
        total += loss.item() * batch.learnt.sum().item()
        count += batch.learnt.sum().item()
    return round(total / count, 5)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--text", "--conversations", "--model", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="directory of an exported checkpoint to go on from")
    parser.add_argument("--settle", type=int, default=0, help="steps before the first one in which only the gate's bias moves")
    parser.add_argument("--bias-step", type=float, default=1e-3)
    parser.add_argument("--held-out", type=Path, help="conversations of the test split, to measure the loss on at the end")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--batch", type=int, default=65_536, help="tokens a step and GPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--decay-from", type=float, default=0.6)
    parser.add_argument("--quantize-from", type=float, default=0.75)
    parser.add_argument("--share", type=float, nargs=2, default=(0.6, 0.9))
    parser.add_argument("--emphasis", type=float, default=2.0, help="weight of a learnt token of a conversation against one of text")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    log = (args.work / ("log.jsonl" if os.environ.get("RANK", "0") == "0" else "other.log")).open("w")
    began = time.time()

    def note(**row: object) -> None:
        if int(os.environ.get("RANK", "0")):
            return
        text = json.dumps({"t": round(time.time() - began, 1), **row})
        log.write(text + "\n")
        log.flush()
        print(text, flush=True)

    rank, ranks = parallel.start(args.device)
    train_text, test_text = load_corpus(args.text)
    if rank == 0:
        note(
            arguments={k: str(v) for k, v in vars(args).items()}, ranks=ranks, train_tokens={name: sum(map(len, d)) for name, d in train_text.items()}
        )
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = torch.device(args.device, rank) if args.device == "cuda" and ranks > 1 else torch.device(args.device)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    model = load_model(args.resume, device, masters).train() if args.resume else Model(ModelConfig.read(args.model)).to(device)
    optimizer = Optimizer(model, args.optimizer == "muon")
    schedule = Schedule(
        lr=args.lr,
        decay_from=args.decay_from,
        quantize_from=args.quantize_from,
        share_first=args.share[0],
        share_last=args.share[1],
        bias_step=args.bias_step,
        resumed=bool(args.resume),
    )
    forward = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    text = text_stream(train_text, args.seed + 1000 * rank)
    chat = conversation_stream(args.conversations, 5.0, rank, ranks)
    rng, state = np.random.default_rng(args.seed + 1000 * rank), {"share": args.share[0]}
    batches = prefetch(lambda: pack(text, chat, state["share"], args.batch, rng, args.emphasis), device)
    if args.compile:
        for quantized in (True, False) if schedule.quantize_from > 0 else (True,):
            model.set_quantize(quantized)
            forward(model, next(batches), dtype)[0].backward()
            model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
    parallel.same(0.0)
    note(compiled=args.compile)
    settle(model, args.settle, args.bias_step, lambda: forward(model, next(batches), dtype)[2], note)
    start, step, p = time.time(), 0, 0.0
    loads_sum, mark = torch.zeros(model.config.num_hidden_layers - 1, model.config.n_routed_experts, device=device), (time.time(), 0)
    while p < 1:
        state["share"] = schedule.share(p)
        model.set_quantize(p >= schedule.quantize_from)
        batch = next(batches)
        loss, _, loads = forward(model, batch, dtype)
        loss.backward()
        parallel.average(optimizer.params, loads)
        norm = optimizer.step(schedule.rate(p, step))
        balance(model, loads, schedule.bias(p), schedule.resumed)
        loads_sum += loads
        step += 1
        p = parallel.same((time.time() - start) / args.seconds) if args.seconds else step / args.steps
        if step % 50 == 0 or step <= 5:
            now, load = time.time(), loads_sum.float()
            rate = ranks * args.batch * (step - mark[1]) / max(1e-9, now - mark[0])
            mark = (now, step)
            note(
                step=step,
                p=round(p, 4),
                loss=round(loss.item(), 4),
                norm=round(norm.item(), 3),
                lr=round(schedule.rate(p, step), 6),
                share=round(state["share"], 3),
                tokens_per_s=round(rate),
                peak=[round((row.max() / row.mean()).item(), 2) for row in load],
                dead=int((load == 0).sum().item()),
            )
            loads_sum.zero_()
            if not math.isfinite(loss.item()):
                raise SystemExit("the loss is not finite")
        if step % 500 == 0:
            parallel.level(model)
        if step % 2000 == 0 and rank == 0:
            save(model, step, args.work / "last.pt")
    if rank == 0:
        finish(args, model, step, ranks * step * args.batch, test_text, dtype, note)
    parallel.stop()


def finish(  # type: ignore[no-untyped-def]
    args: argparse.Namespace, model: Model, step: int, tokens: int, test_text: dict[str, list[np.ndarray]], dtype: torch.dtype, note
) -> None:
    """Save, export, and measure the same masters in bfloat16 and in INT4 on held-out text and conversations."""
    save(model, step, args.work / "last.pt")
    out = args.work / "out"
    out.mkdir(exist_ok=True)
    note(exported_bytes=export(model, out), steps=step, tokens=tokens)
    encoding = tokenizer.load(args.model)
    sizes = [len(encoding.decode_single_token_bytes(i)) if i < 5952 else 0 for i in range(model.config.vocab_size)]
    for quantized in (True, False):
        model.set_quantize(quantized)
        note(bits_per_byte=held_out_bits(model, test_text, sizes, dtype), int4=quantized)
        if args.held_out:
            note(conversation_loss=conversation_loss(model, args.held_out, args.batch, dtype), int4=quantized)


if __name__ == "__main__":
    main()
