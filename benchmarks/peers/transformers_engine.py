"""`transformers.generate`: requests that arrive together are one batched call.

python benchmarks/peers/transformers_engine.py DIR
"""

from __future__ import annotations

import sys
import time

from pipe import Answer, Ask, answer_all, take_output


def main() -> None:
    """Reads the model, then answers until its input ends."""
    out = take_output()
    import torch
    import transformers
    from transformers.generation import BaseStreamer

    class Clock(BaseStreamer):  # type: ignore[misc, no-any-unimported]
        """Notes when each step's tokens came; the first call brings the prompt."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: torch.Tensor) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    model = transformers.DeepseekV3ForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    model.eval()

    def run(asks: list[Ask]) -> list[Answer]:
        prompts = torch.tensor([ask["prompt"] for ask in asks])
        (tokens,) = {ask["max_tokens"] for ask in asks}
        clock = Clock()
        sent = time.perf_counter()
        with torch.inference_mode():
            made = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                streamer=clock,
            )
        ids = made[:, prompts.shape[1] :].tolist()
        return [{"sent_s": sent, "tokens_s": clock.times[1:], "token_ids": row} for row in ids]

    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    answer_all(out, versions, run)


if __name__ == "__main__":
    main()
