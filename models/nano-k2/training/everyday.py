"""Families of tools of everyday life, from the tables in `everyday/`: many wordings each, for training only.

A table holds blocks of five lines, an empty one between them: names of the tool, descriptions, slots, requests, facts.
Alternatives are separated by `|`, slots by commas. A slot is `kind` or `kind:names`, where a kind is one of `KINDS`,
`int LOW-HIGH`, `one A/B/C` or (declared in the schema) `enum A/B/C`. Several requests of each family share no word with
the tool's name and some share none with the description either: what they mean has to be known.
"""

from __future__ import annotations

import functools
from pathlib import Path

from families import Draw, Family, Slot, among, small
from toolbox import drawn
from toolspecs import Tool
from words import Words

TABLES = Path(__file__).with_name("everyday")
KINDS: dict[str, tuple[str, Draw]] = {
    "place": ("city location place town", Words.city),
    "from": ("origin from start departure", Words.city),
    "to": ("destination to target arrival", Words.city),
    "date": ("date day when on_date", Words.date),
    "time": ("time at start_time hour", Words.clock),
    "person": ("name person contact who", Words.person),
    "first": ("name person", Words.first),
    "email": ("email address recipient", Words.email),
    "phone": ("phone phone_number mobile", Words.phone),
    "text": ("text message content", Words.sentence),
    "title": ("title name label", Words.phrase),
    "topic": ("topic subject keyword", Words.noun),
    "id": ("id number code reference", Words.code),
    "path": ("path file filename", Words.path),
    "url": ("url link address", Words.url),
    "word": ("word name term", Words.word),
    "made": ("name", lambda w: w.made_up().capitalize()),
    "money": ("amount sum value price", Words.decimal),
    "number": ("value number", Words.decimal),
    "version": ("version release", Words.version),
    "handle": ("user handle", Words.handle),
    "letter": ("letter", lambda w: w.one("ABCDEFGHIJKLMNOPRSTUVW")),
}
NUMBERS = frozenset(("money", "number"))


def drawing(kind: str) -> Draw:
    """How values of a kind are drawn. KeyError for a kind that does not exist."""
    name, _, rest = kind.partition(" ")
    if name == "int":
        low, high = rest.split("-")
        return small(int(low), int(high) + 1)
    return among(rest.replace("/", "|")) if name in ("one", "enum") else KINDS[kind][1]


def slot(text: str) -> Slot:
    """`int 1-9:nights stay` and the like."""
    kind, _, names = text.partition(":")
    name, _, rest = kind.partition(" ")
    schema = "integer" if name == "int" else "number" if kind in NUMBERS else "enum" if name == "enum" else "string"
    options = rest.replace("/", "|") if name == "enum" else ""
    return Slot(names=names or KINDS[kind][0], draw=drawing(kind), kind=schema, options=options)


def family(block: str) -> Family:
    """One block of a table. ValueError if it has not five lines."""
    names, about, slots, asks, facts = block.splitlines()
    pairs = (fact.partition("=") for fact in facts.split(", ") if "=" in fact)
    return Family(
        names=names,
        about=about,
        slots=tuple(slot(text) for text in slots.split(", ")),
        asks=tuple(asks.split("|")),
        facts=tuple((name, drawing(kind)) for name, _, kind in pairs),
    )


@functools.cache
def everyday() -> tuple[Family, ...]:
    """Every family of every table."""
    return tuple(family(block) for path in sorted(TABLES.glob("*.txt")) for block in path.read_text(encoding="utf-8").strip().split("\n\n"))


def everyday_tool(words: Words) -> Tool:
    """One tool of a family of everyday life, with spellings drawn."""
    return drawn(words, words.one(everyday()))
