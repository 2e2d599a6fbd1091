"""The second stage's conversations with tools: everyday families, requests that must be understood, long ones, chains.

Beside `toolcalls`, whose conversations measure the model and stay as they are, so that its prompts never change.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizer
import toolcalls
from chat import Conversation, Message, compact
from everyday import everyday_tool
from naturals import chosen_slots, natural_tool, plural, slot
from synonyms import Meanings, meant_tool, noun_tool
from toolbox import family_tool
from toolcalls import act, call, opening, several
from toolspecs import QUESTIONS, Parameter, Tool, bare_request, cased, draw_arguments, polite, quoted, random_tool, said
from wordnet import Entry
from words import Words

Calls = list[tuple[Tool, dict[str, Any]]]
IDLE = frozenset(
    "a an the of in on at to for from with by and or is are was what when where who how which whether one somebody something some any as up out "
    "get find search check set make look new show start create send list than it its be can use used using this that has have".split()
)
ASKING = frozenset((*QUESTIONS, *"which when will was were did does are may why whom whose should could would am any until still".split()))
DOING = frozenset(
    "get give show tell make put take send bring set let start stop find look check book rent buy order reserve call keep switch turn open close "
    "list write add remove delete move change save record play read run help ask invite block mute follow report cancel compute convert count "
    "draw paint cut trim scale resize heat warm feed wash unlock lock freeze arm guard pack zip format restart boot deploy ship name".split()
)
ASIDES = (
    "I'm planning my week. ",
    "My {f} asked me about this. ",
    "We talked about the {n} yesterday. ",
    "I'm in a hurry. ",
    "{f} is waiting. ",
    "Good morning! ",
    "One more thing: ",
    "I have {i} things to do today. ",
    "There is a {n} in front of me. ",
)


def source(lexicon: Sequence[Entry], seed: int, model: Path) -> Words:
    """Words of the training split with the tokenizer's pieces and the dictionary's meanings."""
    encoding = tokenizer.load(model)
    texts = (encoding.decode_single_token_bytes(i).decode("utf-8", "replace") for i in range(encoding.max_token_value + 1))
    pieces = [text for text in texts if len(text) > 1 and text.isascii() and text.isalpha()]
    return replace(Words.of(lexicon, seed, test=False), pieces=pieces, meanings=Meanings(lexicon, test=False))


@functools.lru_cache(maxsize=4096)
def stems(text: str) -> str:
    """The words of a text that mean something, without endings, for comparing tools."""
    found = {w for w in text.lower().replace("|", " ").replace(".", " ").replace(",", " ").split() if w not in IDLE}
    return " ".join(sorted(found | {w[:5] for w in found} | {w.rstrip("s") for w in found}))


def known_tool(words: Words) -> Tool:
    """A tool of everyday life; `family` holds whatever it is about."""
    tool = everyday_tool(words) if words.chance(0.85) else family_tool(words)
    return replace(tool, family=stems(f"{tool.family} {tool.description}"))


def any_tool(words: Words) -> Tool:
    """Of 100 tools 28 of everyday life, 20 that must be understood, 27 natural ones by program, 25 at random."""
    style = words.rng.random()
    if style < 0.28:
        return known_tool(words)
    if style < 0.48:
        return meant_tool(words)
    return natural_tool(words) if style < 0.75 else random_tool(words)


def alike(one: Tool, other: Tool) -> bool:
    """Whether a request for one might be meant for the other; rather yes than no, but random tools always say what they do."""
    if not one.asks and not other.asks:
        return toolcalls.alike(one, other)
    mine, theirs = (set(stems(f"{tool.noun} {tool.family.removeprefix('natural ')}").split()) for tool in (one, other))
    return bool(mine & theirs) or toolcalls.alike(one, other)


def relative(tool: Tool, words: Words) -> Tool:
    """A near miss: the same verb for another thing, or the same parameters for another purpose."""
    if tool.family and words.chance(0.4):
        return known_tool(words)
    if words.chance(0.5):
        return noun_tool(words, tool.verb.split()[0])
    return replace(any_tool(words), parameters=tool.parameters) if tool.parameters and words.chance(0.3) else any_tool(words)


def toolset(words: Words, chosen: list[Tool], least: int = 0) -> list[dict[str, Any]]:
    """Declarations of the chosen tools among others, about a third of which come close to one of them."""
    tools = {tool.name: tool for tool in chosen}
    for _ in range(max(least, words.rng.choice((0, 0, 1, 1, 2, 2, 3, 4, 5, 6)))):
        near = words.one(chosen)
        style = words.rng.random()
        other = random_tool(words, near.noun.split()[-1]) if style < 0.2 else relative(near, words) if style < 0.5 else any_tool(words)
        if not any(alike(other, tool) for tool in chosen):
            tools.setdefault(other.name, other)
    declarations = [tool.declaration(words) for tool in tools.values()]
    words.rng.shuffle(declarations)
    return declarations


def spoken(text: str, words: Words, calls: Calls) -> str:
    """A bare request as it would be typed, with frames that suit its first word, now and then after an aside. A value of
    the calls that it begins with keeps its small letter."""
    first = text.split()[0].removesuffix("'s")
    if any(text.startswith(said(value, words)) for _, arguments in calls for value in arguments.values()):
        out = words.one(("{}", "{}.", "Hi, {}", "please: {}", "Hello! {}")).format(text)
    elif words.chance(0.3):
        out = polite(text, words)
    else:
        if first in ASKING:
            frame = words.one(("{}?", "{}?", "{}?", "{}", "{}, please?", "Hi, {}?", "tell me: {}?"))
        elif first in DOING:
            frame = words.one(
                ("{}", "{}.", "please {}", "please {}.", "can you {}?", "could you please {}?", "I'd like you to {}.", "now {}", "{}, please")
            )
        else:
            frame = words.one(("{}", "{}", "{}.", "Hi, {}", "Hello! {}."))
        out = frame.format(text)
        out = out[0].upper() + out[1:] if words.chance(0.7) else out
    if words.chance(0.07):
        out = words.one(ASIDES).format(f=words.first(), n=words.noun(), i=words.rng.randrange(2, 9)) + out
    return out


def long_tool(words: Words) -> Tool:
    """A tool with at least four parameters, at random or natural."""
    while True:
        tool = random_tool(words) if words.chance(0.6) else natural_tool(words)
        if len(tool.parameters) > 3:
            return tool


def request(words: Words) -> tuple[str, Calls]:
    """A user's request and the calls that it needs: one, the same tool several times, or two to five tools."""
    style = words.rng.random()
    tool = long_tool(words) if words.chance(0.12) else any_tool(words)
    if style < 0.58:
        arguments = draw_arguments(tool, words)
        calls = [(tool, arguments)]
        return spoken(bare_request(tool, arguments, words), words, calls), calls
    if style < 0.75 and any(p.required for p in tool.parameters):
        text, sets = several(tool, words)
        calls = [(tool, arguments) for arguments in sets]
        return spoken(text, words, calls), calls
    tools = [tool]
    for _ in range(words.rng.choice((1, 1, 1, 2, 2, 3, 4))):
        other = any_tool(words)
        if not any(alike(other, each) or other.name == each.name for each in tools):
            tools.append(other)
    calls = [(each, draw_arguments(each, words)) for each in tools]
    glue = words.one((" and ", " and also ", ", and then ", ". Also, ", "; "))
    return spoken(glue.join(bare_request(t, a, words) for t, a in calls), words, calls), calls


def forgotten(messages: list[Message], since: int) -> None:
    """The client left the reasoning of these turns out of the history; they are shown without it and not learnt."""
    for message in messages[since:-1]:
        if message["role"] == "assistant" and message.get("tool_calls"):
            message |= {"reasoning_content": "", "forgotten": True}


def with_calls(words: Words) -> Conversation:
    """One to four requests. The conversation ends with calls or with the answer; with thinking off all turns are learnt."""
    thinking, index, chosen = not words.chance(0.3), 0, []
    messages: list[Message] = opening(words)
    turns = words.rng.choice((1, 1, 1, 1, 1, 2) if thinking else (1, 1, 2, 3, 4))
    for turn in range(turns):
        text, calls = request(words)
        if any(alike(tool, known) or tool.name == known.name for tool, _ in calls for known in chosen):
            tool = words.one(chosen)
            calls = [(tool, draw_arguments(tool, words))]
            text = spoken(bare_request(tool, calls[0][1], words), words, calls)
        chosen += [tool for tool, _ in calls if tool not in chosen]
        messages.append({"role": "user", "content": text})
        sentences = act(messages, calls, words, index, thinking)
        index += len(calls)
        if turn == turns - 1 and words.chance(0.6):
            messages = messages[: -len(calls)]
        else:
            messages.append({"role": "assistant", "content": " ".join(sentences)})
    least = words.rng.choice((5, 6, 8)) if words.chance(0.12) else 0
    return Conversation(messages=messages, tools=toolset(words, chosen, least), thinking=thinking, kind="tools")


def key_of(subject: str, style: str, words: Words) -> Parameter:
    """What the second tool of a chain wants to have from the first: a string or an integer, as declared."""
    name = cased(words, f"{subject} {words.one(('id', 'id', 'key', 'number', 'code'))}", style)
    kind = words.one(("string", "string", "integer"))
    draw = Words.integer if kind == "integer" else words.one((Words.code, Words.token, lambda w: str(w.integer())))
    schema = {"type": kind} | ({"description": words.one((f"The id of the {subject}", f"Which {subject}"))} if words.chance(0.6) else {})
    return Parameter(name=name, schema=schema, required=True, draw=draw, spoken=name)


def finder_of(subject: str, style: str, inner: str, words: Words) -> Tool:
    """The first tool of a chain: it looks something up by its name or the like."""
    verb = words.one(("find", "get", "search", "look up", "fetch"))
    by = cased(words, words.one(("name", "query", "title", f"{subject} name", words.word())), inner)
    told = {"type": "string"} | ({"description": words.one((f"The name of the {subject}", f"Name of the {subject}"))} if words.chance(0.6) else {})
    draw = words.one((Words.person, Words.phrase, Words.made_up, Words.noun, Words.email, Words.odd if words.pieces else Words.city))
    about = words.one((f"Find a {subject} by name.", f"Get the {subject} with this {by}", f"Search for a {subject}", f"Look up {plural(subject)}."))
    parameter = Parameter(name=by, schema=told, required=True, draw=draw, spoken=by)
    return Tool(name=cased(words, f"{verb} {subject}", style), verb=verb, noun=subject, description=about, parameters=(parameter,))


def found(name: str, value: Any, declared: str, rest: dict[str, Any], words: Words) -> str:
    """A result in which the value may be written otherwise than the next tool wants it."""
    shown = int(value) if declared == "string" and str(value).isdigit() and str(int(value)) == str(value) and words.chance(0.7) else value
    pairs = [(name, shown), *rest.items()]
    words.rng.shuffle(pairs)
    return compact(dict(pairs))


def chain(words: Words) -> Conversation:
    """The second call needs what the first returned, and a third one now and then what the second did."""
    thinking, leaves_out = not words.chance(0.3), words.chance(0.45)
    subject, (style, inner), base = words.word(), words.style(), random_tool(words)
    finder, key = finder_of(subject, style, inner, words), key_of(subject, inner, words)
    extra = [slot(each, words, {key.name}, inner, True) for each in chosen_slots(words, words.rng.choice((0, 0, 1)))]
    action = replace(base, name=cased(words, f"{base.verb} {base.noun}", style), parameters=(key, *extra), family="")
    who, code = finder.parameters[0].draw(words), key.draw(words)
    told, verb, noun = quoted(who, words), action.verb, action.noun
    ask = words.one(
        (
            f"{verb} the {noun} of the {subject} {told}",
            f"for the {subject} {told}, {verb} the {noun}",
            f"find the {subject} {told} and {verb} its {noun}",
            f"{verb} the {noun} for {subject} {told}",
            f"I want to {verb} the {noun} of {subject} {told}",
            f"look up the {subject} {told}, then {verb} the {noun}",
        )
    )
    given = {p.name: p.draw(words) for p in extra}
    ask = " ".join([ask, *(p.told.format(quoted(given[p.name], words)) for p in extra)])
    messages = [*opening(words), {"role": "user", "content": spoken(ask, words, [(finder, {"by": who})])}]
    first, since = call(finder, {finder.parameters[0].name: who}, 0), len(messages)
    plan = f"First I need {finder.name}, then {action.name}." if thinking else ""
    messages.append({"role": "assistant", "content": "", "tool_calls": [first], "reasoning_content": plan})
    rest = {finder.parameters[0].name: who} | {words.word(): words.value()(words) for _ in range(words.rng.choice((0, 0, 1, 2)))}
    name = key.name if words.chance(0.6) else "id"
    result = found(name, code, key.schema["type"], {k: v for k, v in rest.items() if k != name}, words)
    messages.append({"role": "tool", "tool_call_id": first["id"], "name": finder.name, "content": result})
    sentences = act(messages, [(action, {key.name: code} | given)], words, 1, thinking)
    ended = words.chance(0.6)
    if ended:
        messages.pop()
        if thinking and leaves_out:
            forgotten(messages, since)
    else:
        messages.append({"role": "assistant", "content": " ".join(sentences)})
    return Conversation(messages=messages, tools=toolset(words, [finder, action]), thinking=thinking, kind="chain")


def unfitting(words: Words) -> Conversation:
    """The request needs a tool that is not declared. Rarely one that must be understood: there the nearest tool is right."""
    tool = any_tool(words)
    while tool.family and not tool.family.startswith("natural") and not words.chance(0.35):
        tool = any_tool(words)
    arguments = draw_arguments(tool, words)
    text = spoken(bare_request(tool, arguments, words), words, [(tool, arguments)])
    drawn = [relative(tool, words) if words.chance(0.3) else any_tool(words) for _ in range(words.rng.choice((1, 1, 2, 3, 4)))]
    decoys = [d for d in drawn if not alike(d, tool)] or [random_tool(words)]
    thinking = not words.chance(0.2)
    reply = {
        "role": "assistant",
        "content": "I'm sorry, but none of my tools can do that.",
        "reasoning_content": "None of the tools fits." if thinking else "",
    }
    declared = [d.declaration(words) for d in {d.name: d for d in decoys}.values()]
    messages = [*opening(words), {"role": "user", "content": text}, reply]
    return Conversation(messages=messages, tools=declared, thinking=thinking, kind="unfitting")


def conversation(words: Words) -> Conversation:
    """The mix of these and, one in ten, of the first stage's."""
    style = words.rng.random()
    if style < 0.10:
        return toolcalls.conversation(words)
    if style < 0.78:
        return with_calls(words)
    if style < 0.91:
        return chain(words)
    return toolcalls.missing(words) if style < 0.94 else unfitting(words)
