"""Text to `ClusterConfig`: what is wrong is named by its path, with the nearest right name.

Flags of the command line are the same thing as keys of a file: dotted paths with values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.config import ClusterConfig
from cluster.errors import ConfigError


def load_config(path: Path | None, overrides: Mapping[str, object]) -> ClusterConfig:
    """The config of a YAML file (None: the defaults) with dotted `overrides` laid over it.

    Raises:
        ConfigError: the file cannot be read or is not YAML; a key is unknown or given twice; a
            value has the wrong type or lies outside what the key allows.
    """
    tree = {} if path is None else parse_yaml(_text_of(path), str(path))
    for dotted, value in overrides.items():
        _lay_over(tree, dotted.split("."), value)
    return read_config(tree)


def read_config(tree: Mapping[str, object]) -> ClusterConfig:
    """The config that a nested mapping describes; `ConfigError` as in `load_config`."""
    config = _section(ClusterConfig, tree, "")
    if not isinstance(config, ClusterConfig):
        raise ConfigError("the config is not a mapping of sections")
    return config


def to_tree(config: ClusterConfig) -> dict[str, Any]:
    """The nested mapping that `read_config` turns back into an equal config."""
    return dataclasses.asdict(config)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """A YAML mapping as a dict; `source` names it in errors."""
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{source} must hold a mapping of sections such as `http:`, got {_kind(tree)}"
        )
    return tree


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a config should not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: `{key.value}` is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no config file at {path}; check --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path}: {error}") from error


def _lay_over(tree: dict[str, Any], keys: list[str], value: object) -> None:
    for depth, key in enumerate(keys[:-1]):
        inner = tree.get(key)
        if inner is None:
            inner = tree[key] = {}
        if not isinstance(inner, dict):
            where = ".".join(keys[: depth + 1])
            raise ConfigError(f"`{where}` must be a mapping of keys, got {_kind(inner)}")
        tree = inner
    tree[keys[-1]] = value


def _section(cls: type[Any], tree: object, path: str) -> object:
    if tree is None:
        tree = {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"`{path}` must be a mapping of keys, got {_kind(tree)}")
    kinds = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    values: dict[str, object] = {}
    for key, value in tree.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in fields:
            raise ConfigError(f"unknown key `{where}`{_nearest(str(key), list(fields), path)}")
        kind = kinds[key]
        if dataclasses.is_dataclass(kind):
            values[key] = _section(typing.cast(type[Any], kind), value, where)
        else:
            values[key] = _value(kind, value, where, fields[key].metadata)
    return cls(**values)


def _nearest(key: str, known: list[str], path: str) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        full = f"{path}.{close[0]}" if path else close[0]
        return f"; did you mean `{full}`?"
    return f"; {f'`{path}`' if path else 'the config'} knows: {', '.join(known)}"


def _value(
    kind: type | types.UnionType, value: object, where: str, rules: Mapping[str, Any]
) -> object:
    if isinstance(kind, types.UnionType):
        # The last alternative is as good as any to say what is wanted: such keys bring their text.
        kind = next((one for one in kind.__args__ if type(value) is one), kind.__args__[-1])
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        hint = rules.get("wanted", wanted)
        raise ConfigError(f"`{where}` must be {hint}, got {value!r} ({_kind(value)})")
    if isinstance(value, int | float) and not isinstance(value, bool):
        least, most = rules["least"], rules["most"]
        if value < least or (most is not None and value > most):
            bound = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ConfigError(f"`{where}` must be {bound}, got {value}")
    if isinstance(value, str) and "pattern" in rules and not rules["pattern"].fullmatch(value):
        raise ConfigError(f"`{where}` must be {rules['wanted']}, got {value!r}")
    return value


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false"}
    return names.get(type(value), f"a {type(value).__name__}")
