"""What can be wrong with a checkpoint, a configuration or the machine's arithmetic."""

from __future__ import annotations


class ModelError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(ModelError):
    """`config.json` is missing, malformed, or describes something that is not served."""


class CheckpointError(ModelError):
    """The weights are missing, truncated, or not what the configuration says."""


class UnsupportedFormatError(CheckpointError):
    """The weights are in a format that is known but has no reader."""


class NumericsError(ModelError):
    """This machine's arithmetic cannot be made independent of the batch."""


class TokenizerError(ModelError):
    """The tokenizer's or the chat template's files are unusable, or an id is outside of it."""
