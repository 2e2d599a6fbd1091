"""Tools by program with requests as people word them: thousands of families, none with a word of the other split.

A family is a pattern ("look something up", "do something", "how is it in a place") over random nouns, verbs and
slots. A slot knows several names, a description, and how a request says its value ("at 10:30", "called X").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolspecs import Parameter, Tool, cased, identifier
from words import Words

Draw = Callable[[Words], Any]


@dataclass(frozen=True, kw_only=True)
class Natural:
    """A slot: `group` keeps two that sound alike apart; `told` are its fragments of a request."""

    group: str
    names: str
    about: str
    draw: Draw
    told: str
    schema: str = "string"
    options: str = ""


def small(low: int, high: int) -> Draw:
    return lambda words: words.rng.randrange(low, high)


def among(text: str) -> Draw:
    options = text.split("|")
    return lambda words: words.one(options)


LANGUAGES = "French|German|Spanish|Italian|Japanese|Polish|Swedish|Turkish|Greek|Dutch|Korean|Danish|Finnish|Hindi"
COLOURS = "red|green|blue|yellow|purple|orange|black|white|grey|pink"
CODES = "USD|EUR|GBP|JPY|CHF|INR|CNY|SEK|AUD|CAD|NOK|PLN"
ROOMS = "kitchen|bedroom|bathroom|hall|garage|office|living room|garden|attic|cellar"
SLOTS: tuple[Natural, ...] = (
    Natural(
        group="place",
        names="city place location town where region area",
        about="The city|A place|Where it is",
        draw=Words.city,
        told="in {}|in {}|for {}",
    ),
    Natural(
        group="place",
        names="from origin start departure pickup source from_city",
        about="Where it starts|The origin",
        draw=Words.city,
        told="from {}",
    ),
    Natural(group="goal", names="to destination target arrival goal to_city", about="Where it goes|The destination", draw=Words.city, told="to {}"),
    Natural(group="date", names="date day when on_date due", about="The date|Which day", draw=Words.date, told="on {}|for {}"),
    Natural(group="time", names="time at start_time clock hour", about="The time|At what time", draw=Words.clock, told="at {}"),
    Natural(
        group="person",
        names="person name who contact guest user",
        about="The person|Whose it is|Name of the person",
        draw=Words.person,
        told="for {}|with {}",
    ),
    Natural(group="author", names="owner author creator sender by", about="Who made it|The owner", draw=Words.person, told="by {}"),
    Natural(group="person", names="email recipient mail address to", about="Email address|The recipient", draw=Words.email, told="to {}|for {}"),
    Natural(
        group="text",
        names="message text body content note comment",
        about="The text|What to say",
        draw=Words.sentence,
        told="saying {}|with the text {}|that says {}",
    ),
    Natural(
        group="title",
        names="title name label subject heading",
        about="The title|What it is called",
        draw=Words.phrase,
        told="called {}|named {}|titled {}",
    ),
    Natural(
        group="title",
        names="topic subject about keyword query",
        about="The topic|What to look for",
        draw=Words.noun,
        told="about {}|on the topic of {}",
    ),
    Natural(
        group="limit",
        names="limit max_results count top size",
        about="At most so many|Maximum number",
        draw=small(1, 200),
        told="up to {}|at most {}|limited to {}",
        schema="integer",
    ),
    Natural(
        group="times",
        names="times repeat repetitions quantity copies",
        about="How often|How many",
        draw=small(2, 60),
        told="{} times",
        schema="integer",
    ),
    Natural(
        group="span",
        names="minutes duration duration_minutes length",
        about="Minutes|Duration in minutes",
        draw=small(2, 180),
        told="for {} minutes|lasting {} minutes",
        schema="integer",
    ),
    Natural(
        group="span",
        names="days number_of_days period nights",
        about="Number of days",
        draw=small(2, 60),
        told="for {} days|over {} days",
        schema="integer",
    ),
    Natural(
        group="guests",
        names="people guests party_size seats persons",
        about="How many people",
        draw=small(2, 20),
        told="for {} people|for {} guests",
        schema="integer",
    ),
    Natural(
        group="price",
        names="price max_price budget cost",
        about="The highest price",
        draw=Words.decimal,
        told="under {}|for less than {}|below {}",
        schema="number",
    ),
    Natural(group="unit", names="currency money unit", about="Currency code", draw=among(CODES), told="in {}", options=CODES),
    Natural(group="unit", names="language lang locale", about="The language", draw=among(LANGUAGES), told="in {}"),
    Natural(
        group="level",
        names="priority level importance urgency",
        about="How important",
        draw=among("low|medium|high"),
        told="with {} priority|at {} priority",
        options="low|medium|high",
    ),
    Natural(group="colour", names="color colour shade", about="The colour", draw=among(COLOURS), told="in {}", options=COLOURS),
    Natural(group="room", names="room zone area", about="Which room", draw=among(ROOMS), told="in the {}"),
    Natural(group="path", names="path file filename document", about="Path of a file", draw=Words.path, told="from {}|using the file {}"),
    Natural(group="path", names="url link page website", about="Address of a page", draw=Words.url, told="from {}|at {}"),
    Natural(group="phone", names="phone phone_number mobile", about="Phone number", draw=Words.phone, told="with phone {}|with the phone number {}"),
    Natural(
        group="tags",
        names="tags labels keywords categories",
        about="Some tags",
        draw=lambda w: [w.word() for _ in range(w.rng.choice((1, 2, 2, 3)))],
        told="tagged {}|with the tags {}",
        schema="array",
    ),
    Natural(group="version", names="version release build", about="Which version", draw=Words.version, told="version {}|in version {}"),
    Natural(group="host", names="host server machine node", about="The machine", draw=Words.code, told="on host {}|on the server {}"),
    Natural(
        group="id",
        names="id number reference code key",
        about="The identifier|Which one",
        draw=Words.code,
        told="{}|number {}|with id {}|with the number {}",
    ),
    Natural(group="id", names="id item_id token serial", about="Its id", draw=Words.token, told="{}|with id {}"),
    Natural(group="number", names="number index position rank", about="Its number", draw=small(1, 9000), told="number {}|no. {}", schema="integer"),
)
FLAGS = (
    ("urgent", "urgently"),
    ("express", "by express"),
    ("recursive", "recursively"),
    ("silent", "silently"),
    ("include_tax", "including tax"),
    ("dry_run", "as a dry run"),
    ("anonymous", "anonymously"),
    ("weekly", "every week"),
    ("compressed", "compressed"),
    ("encrypted", "encrypted"),
    ("notify", "and notify everybody"),
    ("force", "by force"),
)
ACTIONS = (
    "order book request reserve call rent buy hire create add make open start schedule plan register send share print export import "
    "publish archive delete remove cancel update change check find search list track follow copy move pause resume"
).split()
WISHES = frozenset("order book request reserve call rent buy hire".split())


def slot(natural: Natural, words: Words, taken: set[str], style: str, required: bool) -> Parameter:
    """One parameter: a usual name, the usual name with a noun, or a name that only its description explains."""
    choice = words.rng.random()
    usual = words.one(natural.names.split())
    base = usual if choice < 0.6 else f"{words.word()}_{usual}" if choice < 0.85 else words.word()
    while cased(words, base, style) in taken:
        base = f"{words.word()}_{usual}"
    name = cased(words, base, style)
    taken.add(name)
    schema: dict[str, Any] = {"type": natural.schema}
    if natural.schema == "array":
        schema["items"] = {"type": "string"}
    if natural.options and words.chance(0.7):
        schema["enum"] = natural.options.split("|")[: words.rng.randrange(3, 20)]
    options = schema.get("enum")
    draw: Draw = (lambda w: w.one(options)) if options else natural.draw
    if choice >= 0.85 or words.chance(0.4):
        schema["description"] = words.one(natural.about.split("|"))
    return Parameter(name=name, schema=schema, required=required, draw=draw, spoken=usual.replace("_", " "), told=words.one(natural.told.split("|")))


def chosen_slots(words: Words, count: int) -> list[Natural]:
    """Slots of different groups."""
    picked: dict[str, Natural] = {}
    for natural in words.rng.sample(SLOTS, len(SLOTS)):
        picked.setdefault(natural.group, natural)
    return list(picked.values())[:count]


def flag(words: Words, taken: set[str], style: str) -> Parameter | None:
    """An optional boolean that a request sets with one phrase."""
    base, phrase = words.one(FLAGS)
    name = cased(words, base, style)
    if name in taken:
        return None
    taken.add(name)
    schema = {"type": "boolean"} | ({"description": base.replace("_", " ").capitalize()} if words.chance(0.4) else {})
    return Parameter(name=name, schema=schema, required=False, draw=lambda w: True, spoken=base.replace("_", " "), told=phrase)


def plural(noun: str) -> str:
    if noun[-1] == "y" and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun[-1] in "sxz" or noun[-2:] in ("ch", "sh") else "s")


def action(words: Words, noun: str, parts: list[str]) -> tuple[str, str, str, list[str]]:
    """(name's words, verb, description, openings): something to do with a thing."""
    verb = words.one(ACTIONS) if words.chance(0.6) else words.verb()
    article = words.article(noun)
    heads = [f"{verb} {article}", f"{verb} the", f"{verb} my"]
    if verb in WISHES:
        heads += ["I need " + article, "get me " + article, "I'd like " + article, "I want " + article, "can I have " + article]
    stem = words.one((f"{verb} {noun}", f"{verb} {noun}", f"{noun} {verb}", f"{noun} service" if verb in WISHES else f"{verb} {noun}"))
    about = words.one((f"{verb.capitalize()} {article} {noun}.", f"{verb.capitalize()} {plural(noun)}", f"Tool to {verb} {article} {noun}"))
    return stem, verb, about, [f"{head} {noun} {' '.join(parts)}" for head in heads]


def lookup(words: Words, noun: str, parts: list[str]) -> tuple[str, str, str, list[str]]:
    """Something is asked about a thing or a place."""
    rest = " ".join(parts)
    heads = [f"what is the {noun} {rest}", f"what's the {noun} {rest}", f"tell me the {noun} {rest}", f"show the {noun} {rest}", f"{noun} {rest}"]
    heads += [
        f"how is the {noun} {rest}",
        f"I'd like to know the {noun} {rest}",
        f"is there {words.article(noun)} {noun} {rest}",
        f"any {noun} {rest}",
    ]
    heads += [f"how {words.adjective()} is the {noun} {rest}", f"is the {noun} {words.adjective()} {rest}", f"do you have the {noun} {rest}"]
    verb = words.one(("get", "get", "fetch", "find", "read", "query", "lookup", "check"))
    extra = words.one(("", "", "", " " + words.one(("info", "status", "report", "level", "index", "data", "details", words.noun()))))
    stem = words.one((f"{verb} {noun}{extra}", f"{noun}{extra}", f"{noun}{extra} {verb}", f"current {noun}{extra}"))
    about = words.one(
        (
            f"Get the {noun}.",
            f"{noun.capitalize()}{extra} of something",
            f"The current {noun}",
            f"Look up {plural(noun)}",
            f"Returns the {noun}{extra}.",
        )
    )
    return stem, verb, about, heads


def counted(words: Words, noun: str, parts: list[str]) -> tuple[str, str, str, list[str]]:
    """How many there are."""
    rest, many = " ".join(parts), plural(noun)
    heads = [f"how many {many} are there {rest}", f"count the {many} {rest}", f"how many {many} {rest}", f"number of {many} {rest}"]
    stem = words.one((f"count {many}", f"{noun} count", f"get {noun} count", f"number of {many}"))
    return stem, "count", words.one((f"Number of {many}.", f"Count {many}", f"How many {many} there are")), heads


def state(words: Words, noun: str, parts: list[str]) -> tuple[str, str, str, list[str]]:
    """Switch or set a thing."""
    rest, verb = " ".join(parts), words.one(("set", "switch", "adjust", "control", "configure", "turn on", "turn off", "reset"))
    heads = [f"{verb} the {noun} {rest}", f"please {verb} {words.article(noun)} {noun} {rest}", f"I want you to {verb} my {noun} {rest}"]
    stem = words.one((f"{verb} {noun}", f"{noun} {verb}", f"{noun} control"))
    return stem, verb, words.one((f"{verb.capitalize()} the {noun}.", f"Control of the {noun}", f"Changes {words.article(noun)} {noun}")), heads


def natural_tool(words: Words) -> Tool:
    """A tool nobody has declared before, with requests in plain words."""
    noun = words.word() if words.chance(0.75) else f"{words.word()} {words.noun()}"
    style, inner = words.style()
    pattern = words.one((action, action, action, lookup, lookup, lookup, counted, state))
    taken: set[str] = set()
    slots = chosen_slots(words, words.rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4)))
    needed = words.rng.choice((1, 1, 2, 2, 3, 4))
    made = [slot(each, words, taken, inner, i < needed) for i, each in enumerate(slots)]
    if words.chance(0.2) and (switch := flag(words, taken, inner)):
        made.append(switch)
    parts = [p.told.format(f"{{{p.name}}}") for p in made if p.required]
    words.rng.shuffle(parts)
    stem, verb, about, heads = pattern(words, noun, parts)
    words.rng.shuffle(made)
    facts = {words.noun() if words.chance(0.7) else noun.replace(" ", "_"): words.value() for _ in range(words.rng.choice((1, 1, 2)))}
    return Tool(
        name=identifier(words, stem, style),
        verb=verb,
        noun=noun,
        description=about,
        parameters=tuple(made),
        asks=tuple(head.strip() for head in heads),
        facts=tuple(facts.items()),
        family=f"natural {noun}",
    )
