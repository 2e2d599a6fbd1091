"""What a gateway knows of its model: words, not weights."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gateway.config import GatewayConfig
from gateway.errors import ModelNotFoundError
from gateway.sampling import SamplingDefaults
from kimi_k2.chat import ChatTemplate
from kimi_k2.errors import ConfigError
from kimi_k2.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The model that requests name.

    created: unix time at which this gateway began to serve it.
    """

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate
    defaults: SamplingDefaults
    created: int

    @classmethod
    def load(cls, config: GatewayConfig) -> ServedModel:
        """Reads the checkpoint directory's tokenizer, template and generation settings.

        Raises:
            ModelError: one of them is missing or malformed.
        """
        tokenizer = Tokenizer.from_dir(config.model)
        return cls(
            name=config.served_name,
            tokenizer=tokenizer,
            template=ChatTemplate.from_dir(config.model, tokenizer),
            defaults=read_defaults(config.model / "generation_config.json"),
            created=int(time.time()),
        )

    def check_name(self, name: object) -> None:
        """Raises:
        ModelNotFoundError: a request names another model.
        """
        if isinstance(name, str) and name != self.name:
            raise ModelNotFoundError(
                f"The model {name[:100]!r} does not exist; this server has {self.name!r}"
            )

    def body(self, max_model_len: int | None) -> dict[str, Any]:
        """OpenAI's model object; `max_model_len` is ours."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "orrery",
            "max_model_len": max_model_len,
        }


def read_defaults(path: Path) -> SamplingDefaults:
    """The sampling defaults that a checkpoint recommends; ours where it has no such file.

    Raises:
        ConfigError: the file is malformed.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return SamplingDefaults()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold an object")
    known = {}
    for field in fields(SamplingDefaults):
        value = values.get(field.name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{path}: {field.name} must be a number")
        known[field.name] = int(value) if field.name == "top_k" else float(value)
    if values.get("do_sample") is False:
        known["temperature"] = 0.0
    return SamplingDefaults(**known)  # type: ignore[arg-type]
