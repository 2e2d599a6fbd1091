"""vLLM's engine on CPU, stepped in one process: no HTTP, no tokenizer, every core its own choice.

.venv-peers/bin/python benchmarks/peers/vllm_engine.py DIR
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque

from pipe import Answer, Ask, answer_all, take_output

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def main() -> None:
    """Reads the model, then answers until its input ends."""
    out = take_output()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import torch
    import vllm

    engine = vllm.LLMEngine.from_engine_args(
        vllm.EngineArgs(
            model=sys.argv[1],
            dtype="float32",
            skip_tokenizer_init=True,
            max_model_len=4096,
            max_num_seqs=64,
            disable_log_stats=True,
            enforce_eager="--eager" in sys.argv,
        )
    )
    number = 0

    def run(asks: list[Ask]) -> list[Answer]:
        nonlocal number
        began = time.perf_counter()
        answers: dict[str, Answer] = {}
        waiting = deque(sorted(asks, key=lambda ask: float(ask["at_s"])))
        order = {id(ask): str(number + place) for place, ask in enumerate(asks)}
        number += len(asks)
        while waiting or engine.has_unfinished_requests():
            while waiting and time.perf_counter() - began >= waiting[0]["at_s"]:
                ask = waiting.popleft()
                sampling = vllm.SamplingParams(
                    temperature=0.0,
                    max_tokens=ask["max_tokens"],
                    ignore_eos=True,
                    detokenize=False,
                )
                name = order[id(ask)]
                sent = began + ask["at_s"]
                answers[name] = {"sent_s": sent, "tokens_s": [], "token_ids": []}
                engine.add_request(name, {"prompt_token_ids": ask["prompt"]}, sampling)
            if not engine.has_unfinished_requests():
                time.sleep(max(0.0, began + waiting[0]["at_s"] - time.perf_counter()))
                continue
            outputs = engine.step()
            now = time.perf_counter()
            for output in outputs:
                times = answers[output.request_id]["tokens_s"]
                ids = list(output.outputs[0].token_ids)
                times += [now] * (len(ids) - len(times))
                answers[output.request_id]["token_ids"] = ids
        return [answers[order[id(ask)]] for ask in asks]

    answer_all(out, {"vllm": vllm.__version__, "torch": torch.__version__}, run)


if __name__ == "__main__":
    main()
