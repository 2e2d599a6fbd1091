"""Tools of the families that people really declare: names and parameters vary, the wording is natural."""

from __future__ import annotations

from typing import Any

from families import HELD_OUT, Family, families
from toolspecs import Parameter, Tool, cased, described
from words import Words


def optional(words: Words, family: Family, taken: set[str]) -> Parameter:
    """A parameter that most requests leave out."""
    if "eather" in family.names or "forecast" in family.names:
        options = words.one((["celsius", "fahrenheit"], ["fahrenheit", "celsius"], ["metric", "imperial"]))
        schema = {"type": "string", "enum": options}
        return Parameter(name="unit", schema=schema, required=False, draw=lambda w: w.one(options), spoken="unit")
    name = next(n for n in words.rng.sample(("limit", "verbose", "priority", "note", "language"), 5) if n not in taken)
    if name == "limit":
        return Parameter(name=name, schema={"type": "integer"}, required=False, draw=Words.integer, spoken=name)
    if name == "verbose":
        return Parameter(name=name, schema={"type": "boolean"}, required=False, draw=lambda w: w.chance(0.7), spoken=name)
    if name == "priority":
        levels = ["low", "medium", "high"]
        return Parameter(name=name, schema={"type": "string", "enum": levels}, required=False, draw=lambda w: w.one(levels), spoken=name)
    return Parameter(name=name, schema={"type": "string"}, required=False, draw=Words.noun, spoken=name)


def family_tool(words: Words) -> Tool:
    """One tool of a family of this split."""
    every = families()
    return drawn(words, words.one(every[-HELD_OUT:] if words.test else every[:-HELD_OUT]))


def drawn(words: Words, family: Family) -> Tool:
    """A tool of the family: spellings, descriptions and now and then an optional parameter."""
    style = words.one(("snake", "snake", "snake", "camel", "kebab", "pascal"))
    parameters, taken = [], set()
    for slot in family.slots:
        base = next(n for n in words.rng.sample(slot.names.split(), len(slot.names.split())) if n not in taken)
        taken.add(base)
        schema: dict[str, Any] = {"type": "string" if slot.kind == "enum" else slot.kind}
        if slot.options:
            schema["enum"] = slot.options.split("|")
        if words.chance(0.5):
            schema["description"] = described(base.replace("_", " "), slot.draw, words)
        inner = "camel" if style in ("camel", "pascal") else "snake"
        parameters.append(Parameter(name=cased(words, base, inner), schema=schema, required=True, draw=slot.draw, spoken=base))
    if words.chance(0.35):
        parameters.append(optional(words, family, taken))
    stem = words.one(family.names.split("|"))
    asks = family.asks
    for index, made in enumerate(parameters):
        asks = tuple(ask.replace(f"{{{index}}}", f"{{{made.name}}}") for ask in asks)
    return Tool(
        name=cased(words, stem, style),
        verb=stem.split()[0],
        noun=stem,
        description=words.one(family.about.split("|")),
        parameters=tuple(parameters),
        asks=asks,
        facts=family.facts,
        family=family.names,
    )
