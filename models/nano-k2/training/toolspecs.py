"""Random tools: names, schemas, and requests that name every argument. No two are alike.

A tool is a verb and an object ("archive the invoice") with up to five parameters. The request says the same
action and the values, so that the right call can be read off the declared JSON and the request alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from words import Words

VERBS = (
    "get find search list create delete update archive send book cancel check convert compute schedule open close start stop "
    "lock unlock print share rename copy move upload download translate summarize play pause resume order track rate review "
    "approve reject assign merge split export import publish validate scan measure monitor reset restart enable disable add "
    "remove count sort filter compare draw render paint mix bake cook wash repair paint charge refund ship deliver reserve "
    "register invite block mute follow report log describe estimate predict"
).split()
SAME = {
    "get": "show me",
    "find": "look up",
    "search": "look for",
    "create": "make",
    "delete": "remove",
    "book": "reserve",
    "check": "look at",
    "compute": "work out",
    "send": "send out",
    "list": "show",
    "start": "launch",
    "stop": "halt",
}
QUESTIONS = (
    "what how is do has where who any weather current stock quote forecast flights timer alarm distance population recipe air latest table I for "
    "I'd can do any number count"
).split()
TYPES = ("string", "string", "string", "string", "string", "integer", "integer", "number", "boolean", "enum", "array", "object")
STRINGS = (
    Words.city,
    Words.person,
    Words.noun,
    Words.code,
    Words.email,
    Words.date,
    Words.clock,
    Words.path,
    Words.url,
    Words.phrase,
    Words.sentence,
    Words.made_up,
    Words.first,
    Words.token,
    Words.version,
    Words.phone,
    Words.handle,
    Words.word,
)
NAMES = (
    "id name title query city country date time email user user_id account owner path file url language format unit amount "
    "price quantity limit page size color category status priority topic message text note label tag tags start end "
    "start_date end_date duration distance temperature width height weight code key value target source destination mode level "
    "currency room seat guests year month day version branch author genre volume speed brand model address phone subject"
).split()


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One property of a schema and how a request speaks of it."""

    name: str
    schema: dict[str, Any]
    required: bool
    draw: Callable[[Words], Any]
    spoken: str
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A declared function. `ask` turns arguments into a request, `noun` and `verb` say what it does."""

    name: str
    verb: str
    noun: str
    description: str
    parameters: tuple[Parameter, ...]
    asks: tuple[str, ...] = ()
    facts: tuple[tuple[str, Callable[[Words], Any]], ...] = ()
    family: str = ""

    @property
    def opaque(self) -> bool:
        """Whether the name tells nothing, so that only the description does."""
        return not any(part in self.name.lower() for part in (*self.noun.split(), self.verb.split()[0]))

    def declaration(self, words: Words) -> dict[str, Any]:
        """OpenAI's shape, with the liberties that clients take."""
        schema: dict[str, Any] = {"type": "object", "properties": {p.name: p.schema for p in self.parameters}}
        required = [p.name for p in self.parameters if p.required]
        if required or words.chance(0.5):
            schema["required"] = required
        if words.chance(0.1):
            schema["additionalProperties"] = False
        function: dict[str, Any] = {"name": self.name, "description": self.description, "parameters": schema}
        if words.chance(0.08) and not self.opaque:
            function.pop("description")
        if words.chance(0.08):
            function["strict"] = True
        return {"type": "function", "function": function}


def cased(words: Words, text: str, style: str) -> str:
    """`text` (words with spaces) as an identifier."""
    parts = text.replace("-", " ").replace("_", " ").split()
    if style == "camel":
        return parts[0] + "".join(p.capitalize() for p in parts[1:])
    if style == "pascal":
        return "".join(p.capitalize() for p in parts)
    if style == "flat":
        return "".join(parts)
    return ("-" if style == "kebab" else "_").join(parts)


def identifier(words: Words, text: str, style: str) -> str:
    """A tool's name: now and then with a prefix or a number, now and then one that says nothing."""
    choice = words.rng.random()
    if choice < 0.05:
        return words.one(
            (f"{words.one(('tool', 'fn', 'api', 'op', 'action'))}_{words.integer()}", words.made_up(), f"{words.made_up()}_{words.made_up()}")
        )
    if choice < 0.12:
        return cased(words, f"{words.word()} {text}", style)
    if choice < 0.17:
        return cased(words, f"{text} {words.one(('v2', 'v3', 'api', 'tool', 'service', 'now', '2'))}", style)
    return cased(words, text, style)


def fitting(name: str, words: Words) -> Callable[[Words], str]:
    """Strings that suit well-known names; anything for the others."""
    known = {
        "city": Words.city,
        "destination": Words.city,
        "source": Words.city,
        "email": Words.email,
        "user": Words.first,
        "owner": Words.person,
        "author": Words.person,
        "name": Words.person,
        "date": Words.date,
        "start_date": Words.date,
        "end_date": Words.date,
        "time": Words.clock,
        "path": Words.path,
        "file": Words.path,
        "url": Words.url,
        "id": Words.code,
        "code": Words.code,
        "key": Words.code,
        "user_id": Words.code,
        "message": Words.sentence,
        "text": Words.sentence,
        "note": Words.sentence,
        "query": Words.phrase,
        "title": Words.phrase,
        "topic": Words.noun,
    }
    return known.get(name) or words.one(STRINGS)


def parameter(words: Words, taken: set[str], style: str) -> Parameter:
    """A random parameter whose name is new."""
    while True:
        tail = words.one(("", "", "", "_id", "_name", "_count", f"_{words.one(NAMES)}"))
        base = words.one(NAMES) if words.chance(0.35) else words.word() + tail if words.chance(0.85) else f"{words.adjective()}_{words.word()}"
        name = cased(words, base, style)
        if name not in taken:
            taken.add(name)
            break
    kind = words.one(TYPES)
    spoken = base.replace("_", " ")
    schema: dict[str, Any] = {"type": kind}
    draw: Callable[[Words], Any] = fitting(base, words)
    if kind == "integer":
        draw = Words.integer
    elif kind == "number":
        draw = Words.decimal
    elif kind == "boolean":
        draw = lambda w: w.chance(0.6)  # noqa: E731
    elif kind == "enum":
        source = words.one((Words.noun, Words.adjective, Words.word, Words.made_up, Words.token))
        options = list(dict.fromkeys(source(words) for _ in range(words.rng.choice((2, 3, 4, 5)))))
        if words.chance(0.2):
            options = [option.upper() for option in options]
        schema = {"type": "string", "enum": options}
        draw = lambda w: w.one(options)  # noqa: E731
    elif kind == "array":
        item = words.one((Words.noun, Words.first, Words.code, Words.integer, Words.city, Words.word, Words.made_up))
        schema = {"type": "array", "items": {"type": "integer" if item is Words.integer else "string"}}
        draw = lambda w: [item(w) for _ in range(w.rng.choice((1, 2, 2, 3)))]  # noqa: E731
    elif kind == "object":
        keys = [words.one(NAMES) if words.chance(0.3) else words.word() for _ in range(words.rng.choice((1, 2, 2, 3)))]
        pairs = [(key, words.one((Words.integer, Words.noun, Words.city, Words.code, Words.word))) for key in dict.fromkeys(keys)]
        properties = {key: {"type": "integer" if each is Words.integer else "string"} for key, each in pairs}
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        draw = lambda w: {key: each(w) for key, each in pairs}  # noqa: E731
    if words.chance(0.5):
        schema["description"] = described(spoken, draw, words)
    return Parameter(name=name, schema=schema, required=words.chance(0.65), draw=draw, spoken=spoken)


def described(spoken: str, draw: Callable[[Words], Any], words: Words) -> str:
    """A parameter's description; some give an example that must not be copied."""
    plain = (f"The {spoken}", f"The {spoken} to use", spoken.capitalize(), f"{spoken} of the request", f"The {spoken}.")
    if words.chance(0.3):
        return f"The {spoken}, {words.one(('e.g.', 'for example', 'such as'))} {said(draw(words), words)}"
    return words.one(plain)


def random_tool(words: Words, noun: str | None = None) -> Tool:
    """A tool nobody has seen, optionally about a given noun."""
    verb, noun = words.one(VERBS) if words.chance(0.5) else words.verb(), noun or words.word()
    if words.chance(0.2):
        noun = f"{words.one((words.noun, words.adjective))()} {noun}"
    style, inner = words.style()
    stem = words.one((f"{verb} {noun}", f"{verb} {noun}", f"{verb} {noun}", f"{noun} {verb}"))
    taken: set[str] = set()
    count = words.rng.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6))
    article = words.one(("the", "a")) if noun[0] not in "aeiou" else "the"
    description = words.one(
        (
            f"{verb.capitalize()} {article} {noun}.",
            f"{verb.capitalize()} {article} {noun}",
            f"Use this to {verb} {article} {noun}.",
            f"{verb.capitalize()}s {article} {noun}.",
            f"This function can {verb} {article} {noun}.",
        )
    )
    return Tool(
        name=identifier(words, stem, style),
        verb=verb,
        noun=noun,
        description=description,
        parameters=tuple(parameter(words, taken, inner) for _ in range(count)),
    )


def said(value: Any, words: Words) -> str:
    """How a person writes a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        items = [said(item, words) for item in value]
        return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
    if isinstance(value, dict):
        return ", ".join(f"{key} {said(item, words)}" for key, item in value.items())
    return str(value)


def quoted(value: Any, words: Words) -> str:
    text = said(value, words)
    if isinstance(value, str) and words.chance(0.85 if " " in text else 0.2):
        return words.one(('"{}"', "'{}'", '"{}"')).format(text) if "'" not in text else f'"{text}"'
    return text


def details(tool: Tool, arguments: dict[str, Any], words: Words) -> str:
    """The arguments of a request, in one of the ways in which people give them."""
    if not arguments:
        return ""
    form = words.one(
        ("with {n} {v}", "with {n} {v}", "{n}: {v}", "{n} = {v}", "{n} is {v}", "using {v} as the {n}", "where the {n} is {v}", "and set {n} to {v}")
    )
    named = {p.name: words.one((p.spoken, p.spoken, p.name)) for p in tool.parameters}
    pieces = [form.format(n=named[name], v=quoted(value, words)) for name, value in arguments.items()]
    words.rng.shuffle(pieces)
    if form.startswith(("with", "using", "where", "and set")):
        first = pieces[0].removeprefix("and ")
        rest = [piece.removeprefix("with ").removeprefix("and ") for piece in pieces[1:]]
        return " " + words.one((" and ", ", ")).join([first, *rest])
    return words.one((", ", ", ", ". ", ": ")) + ", ".join(pieces)


def draw_arguments(tool: Tool, words: Words) -> dict[str, Any]:
    """Required arguments, and about half of the optional ones."""
    return {p.name: p.draw(words) for p in tool.parameters if p.required or words.chance(0.5)}


def bare_request(tool: Tool, arguments: dict[str, Any], words: Words) -> str:
    """The action and its details, lower case, without a full stop."""
    if tool.asks:
        ask = words.one(tool.asks)
        told = ask.format(**{name: quoted(value, words) for name, value in arguments.items()})
        extra = {name: value for name, value in arguments.items() if f"{{{name}}}" not in ask}
        phrases = {p.name: p.told for p in tool.parameters if p.told and p.name in extra}
        pieces = [told, *(phrase.format(quoted(extra.pop(name), words)) for name, phrase in phrases.items())]
        return " ".join(pieces) + (f" in {next(iter(extra.values()))}" if "unit" in extra else details(tool, extra, words).rstrip("("))
    verb = SAME.get(tool.verb, tool.verb) if words.chance(0.25) else tool.verb
    return f"{verb} {words.one(('the', 'the', 'a', 'my'))} {tool.noun}{details(tool, arguments, words)}"


def polite(text: str, words: Words) -> str:
    """A bare request as somebody would type it."""
    if text.split()[0].rstrip("'s") in QUESTIONS or text.split()[0] in QUESTIONS:
        frame = words.one(("{}?", "{}?", "{}", "Hi, {}?", "Hey! {}?", "Please tell me, {}?", "{}, please?", "I'd like to know: {}?"))
        out = frame.format(text)
        return out[0].upper() + out[1:] if words.chance(0.7) else out
    frame = words.one(
        (
            "{}",
            "{}",
            "{}.",
            "{}.",
            "please {}",
            "Please {}.",
            "Can you {}?",
            "could you {}?",
            "I want you to {}.",
            "I need you to {}.",
            "Hi, {}",
            "{}, please.",
            "Would you {}?",
            "now {}",
            "Let's {}.",
            "go ahead and {}",
        )
    )
    out = frame.format(text)
    return out[0].upper() + out[1:] if words.chance(0.7) else out
