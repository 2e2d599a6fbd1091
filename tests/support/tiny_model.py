"""A model directory without weights: the tiny tokenizer, nano-K2's chat template."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from tests.support.tiny_tokenizer import RANKS, SPECIALS

TEMPLATE = Path(__file__).parents[2] / "models" / "nano-k2" / "chat_template.jinja"


def write_tiny_model(folder: Path) -> Path:
    """Writes what a gateway reads; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in RANKS.items())
    (folder / "tiktoken.model").write_text("".join(lines))
    added = {str(len(RANKS) + i): {"content": name} for i, name in enumerate(SPECIALS)}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6}))
    shutil.copy(TEMPLATE, folder / "chat_template.jinja")
    return folder
