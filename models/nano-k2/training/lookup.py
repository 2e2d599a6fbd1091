"""Exercises in copying: read a value out of a list, a table or JSON, repeat odd strings, continue a pattern.

They are here because a small model learns from them to look back and copy, which is what tool calls are made of.
"""

from __future__ import annotations

from typing import Any

from chat import Conversation, Message, compact
from toolspecs import cased, said
from words import Words


def record(words: Words, count: int) -> dict[str, Any]:
    """Random keys with random values."""
    style = words.one(("snake", "camel", "flat"))
    keys = {cased(words, words.word() if words.chance(0.6) else f"{words.word()} {words.noun()}", style) for _ in range(count)}
    return {key: words.value()(words) for key in sorted(keys, key=lambda _: words.rng.random())}


def written(rows: dict[str, Any], words: Words) -> str:
    """A record as JSON, as lines, as a sentence."""
    style = words.rng.random()
    if style < 0.35:
        return compact(rows)
    if style < 0.5:
        return "\n".join(f"{key}: {value}" for key, value in rows.items())
    if style < 0.65:
        return "\n".join(f"- {key} = {value}" for key, value in rows.items())
    if style < 0.8:
        return ", ".join(f"{key}={value}" for key, value in rows.items())
    return ". ".join(f"The {key} is {value}" for key, value in rows.items()) + "."


def field(words: Words) -> list[tuple[str, str]]:
    """Questions about one record; the first exchange shows it."""
    rows = record(words, words.rng.choice((2, 3, 4, 5, 6, 8)))
    text, pairs = written(rows, words), []
    for key in words.rng.sample(list(rows), min(len(rows), words.rng.choice((1, 2, 3, 4)))):
        ask = words.one((f"What is the {key}?", f"{key}?", f"Give me the {key}.", f"what's {key}", f"the value of {key}"))
        pairs.append((ask, words.one((said(rows[key], words), f"The {key} is {said(rows[key], words)}."))))
    first = words.one((f"{text}\n{pairs[0][0]}", f"{pairs[0][0]}\n{text}", f"Here is some data: {text}\n\n{pairs[0][0]}"))
    return [(first, pairs[0][1]), *pairs[1:]]


def which(words: Words) -> list[tuple[str, str]]:
    """The other way round: the key of a value."""
    rows = record(words, words.rng.choice((2, 3, 4, 5)))
    key = words.one(list(rows))
    return [(f"{written(rows, words)}\nWhich key has the value {rows[key]}?", key)]


def echo(words: Words) -> list[tuple[str, str]]:
    """Repeat exactly."""
    parts = [str(words.value()(words)) for _ in range(words.rng.choice((1, 2, 3, 5, 8, 12)))]
    text = words.one((" ", ", ", " | ", "\n")).join(parts)
    return [(words.one((f"Repeat exactly: {text}", f"Copy this: {text}", f"Say this again: {text}", f"Echo: {text}")), text)]


def after(words: Words) -> list[tuple[str, str]]:
    """What stands before or after an item."""
    items = list(dict.fromkeys(str(words.value()(words)) for _ in range(words.rng.choice((3, 4, 6, 8)))))
    listed, at = ", ".join(items), words.rng.randrange(1, max(2, len(items)))
    if len(items) < 2:
        return echo(words)
    if words.chance(0.5):
        return [(f"What comes after {items[at - 1]} in this list: {listed}", items[at])]
    return [(f"What comes before {items[at]} in this list: {listed}", items[at - 1])]


def as_json(words: Words) -> list[tuple[str, str]]:
    """Values in words to JSON by a list of keys, and JSON to words."""
    rows = record(words, words.rng.choice((1, 2, 3, 4, 5)))
    spoken = ", ".join(words.one((f"{key} {value}", f"{key} is {value}", f"{key}: {value}")) for key, value in rows.items())
    order = words.rng.sample(list(rows), len(rows))
    return [(f"Write as JSON with the keys {', '.join(order)}: {spoken}", compact({key: rows[key] for key in order}))]


def renamed(words: Words) -> list[tuple[str, str]]:
    """One identifier in another spelling."""
    text = " ".join(words.word() for _ in range(words.rng.choice((2, 2, 3))))
    source, target = words.rng.sample(("snake", "camel", "pascal", "kebab"), 2)
    return [(f"Write {cased(words, text, source)} in {target} case", cased(words, text, target))]


def conversation(words: Words) -> Conversation:
    """One to three exercises."""
    messages: list[Message] = []
    for _ in range(words.rng.choice((1, 1, 2, 3))):
        source = words.one((field, field, field, which, echo, echo, after, as_json, as_json, renamed))
        for ask, reply in source(words):
            messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return Conversation(messages=messages, thinking=not words.chance(0.1), kind="lookup")
