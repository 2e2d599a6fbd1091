"""Conversations with tools: one call, parallel calls, chains, several turns, missing arguments, and no call."""

from __future__ import annotations

from typing import Any

from chat import Conversation, Message, compact
from toolbox import family_tool
from toolspecs import Parameter, Tool, bare_request, draw_arguments, polite, quoted, random_tool, said
from words import Words

GENERAL = (Words.code, Words.integer, Words.decimal, Words.city, Words.person, Words.noun, Words.date, Words.clock)
TROUBLE = ("not found", "permission denied", "timeout", "invalid value", "service unavailable", "rate limit exceeded", "no such item")


def any_tool(words: Words) -> Tool:
    return family_tool(words) if words.chance(0.45) else random_tool(words)


def toolset(words: Words, chosen: list[Tool]) -> list[dict[str, Any]]:
    """Declarations of the chosen tools among others, shuffled, names distinct; some others are close relatives."""
    tools = {tool.name: tool for tool in chosen}
    for _ in range(words.rng.choice((0, 0, 1, 1, 2, 2, 3, 4))):
        other = random_tool(words, chosen[0].noun.split()[-1]) if chosen and words.chance(0.2) else any_tool(words)
        if not any((other.noun, other.verb) == (t.noun, t.verb) or (t.family and t.family == other.family) for t in chosen):
            tools.setdefault(other.name, other)
    declarations = [tool.declaration(words) for tool in tools.values()]
    words.rng.shuffle(declarations)
    return declarations


def call(tool: Tool, arguments: dict[str, Any], index: int) -> dict[str, Any]:
    """One tool call; arguments come in the order of the schema."""
    ordered = {p.name: arguments[p.name] for p in tool.parameters if p.name in arguments}
    return {"id": f"functions.{tool.name}:{index}", "type": "function", "function": {"name": tool.name, "arguments": compact(ordered)}}


def outcome(tool: Tool, words: Words) -> tuple[str, list[tuple[str, Any]]]:
    """A result as its tool would send it, and the facts in it (none after an error)."""
    if words.chance(0.07):
        reason = words.one(TROUBLE)
        return words.one((compact({"error": reason}), f"Error: {reason}")), []
    facts = [(name, draw(words)) for name, draw in tool.facts]
    if not facts:
        names = dict.fromkeys(
            words.one((words.noun(), tool.noun.split()[-1] + "_id", "id", "total", "value")) for _ in range(words.rng.choice((1, 1, 2)))
        )
        facts = [(name, words.one(GENERAL)(words)) for name in names]
    if words.chance(0.12):
        return ", ".join(f"{name}: {value}" for name, value in facts), facts
    extra = [("status", "ok")] if words.chance(0.3) else []
    return compact(dict(extra + facts)), facts


def report(tool: Tool, arguments: dict[str, Any], result: str, facts: list[tuple[str, Any]], words: Words) -> str:
    """The answer that uses the result."""
    if not facts:
        reason = result.removeprefix("Error: ").removeprefix('{"error":"').removesuffix('"}')
        return f"That did not work: {reason}."
    text = [f"the {name.replace('_', ' ')} is {said(value, words)}" for name, value in facts]
    joined = " and ".join(text)
    place = next((v for p, v in arguments.items() if p.lower() in ("city", "location", "place", "town", "cityname", "city_name")), None)
    if place and tool.facts:
        return f"In {place}, {joined}."
    return f"{joined[0].upper()}{joined[1:]}."


def thought(calls: list[tuple[Tool, dict[str, Any]]]) -> str:
    """One short sentence before the calls: which tools, and how often."""
    names = [tool.name for tool, _ in calls]
    if len(names) == 1:
        return f"I can use {names[0]} for this."
    if len(set(names)) == 1:
        return f"I need {len(names)} calls of {names[0]}."
    return "I need " + ", ".join(names[:-1]) + f" and {names[-1]}."


def act(messages: list[Message], calls: list[tuple[Tool, dict[str, Any]]], words: Words, index: int, thinking: bool) -> list[str]:
    """Append one assistant turn with calls and their results; returns a sentence per result."""
    made = [call(tool, arguments, index + i) for i, (tool, arguments) in enumerate(calls)]
    messages.append({"role": "assistant", "content": "", "reasoning_content": thought(calls) if thinking else "", "tool_calls": made})
    sentences = []
    for (tool, arguments), each in zip(calls, made, strict=True):
        result, facts = outcome(tool, words)
        messages.append({"role": "tool", "tool_call_id": each["id"], "name": tool.name, "content": result})
        sentences.append(report(tool, arguments, result, facts, words))
    return sentences


def several(tool: Tool, words: Words) -> tuple[str, list[dict[str, Any]]]:
    """One request that needs the same tool two to four times: (request, arguments of each)."""
    sets = [draw_arguments(tool, words) for _ in range(words.rng.choice((2, 2, 2, 3, 3, 4)))]
    if len(tool.parameters) == 1 and tool.asks and words.chance(0.7):
        name = tool.parameters[0].name
        values = [quoted(arguments[name], words) for arguments in sets]
        joined = ", ".join(values[:-1]) + f" and {values[-1]}"
        return words.one(tool.asks).format(**{name: joined}), sets
    glue = words.one((" and ", ", then ", " and also ", "; "))
    return glue.join(bare_request(tool, arguments, words) for arguments in sets), sets


def request(words: Words) -> tuple[str, list[tuple[Tool, dict[str, Any]]]]:
    """A user's request and the calls that it needs."""
    tool = any_tool(words)
    style = words.rng.random()
    if style < 0.70:
        arguments = draw_arguments(tool, words)
        return polite(bare_request(tool, arguments, words), words), [(tool, arguments)]
    if style < 0.88 and tool.parameters:
        text, sets = several(tool, words)
        return polite(text, words), [(tool, arguments) for arguments in sets if arguments] or [(tool, sets[0])]
    other = any_tool(words)
    if other.name == tool.name:
        other = random_tool(words)
    both = [(tool, draw_arguments(tool, words)), (other, draw_arguments(other, words))]
    glue = words.one((" and ", " and also ", ", and then ", ". Also, "))
    return polite(glue.join(bare_request(t, a, words) for t, a in both), words), both


def with_calls(words: Words) -> Conversation:
    """One to three requests; the conversation may stop at the calls or go on to the answer."""
    thinking, index, chosen = not words.chance(0.2), 0, []
    messages: list[Message] = opening(words)
    turns = words.rng.choice((1, 1, 1, 1, 2, 2, 3))
    for turn in range(turns):
        text, calls = request(words)
        if turn and words.chance(0.4):
            tool = chosen[-1]
            calls = [(tool, draw_arguments(tool, words))]
            text = polite(bare_request(tool, calls[0][1], words), words)
        chosen += [tool for tool, _ in calls]
        messages.append({"role": "user", "content": text})
        sentences = act(messages, calls, words, index, thinking)
        index += len(calls)
        if turn == turns - 1 and words.chance(0.35):
            messages = messages[: -len(calls)]
        else:
            messages.append({"role": "assistant", "content": " ".join(sentences)})
    unique = list({tool.name: tool for tool in chosen}.values())
    return Conversation(messages=messages, tools=toolset(words, unique), thinking=thinking, kind="tools")


def chain(words: Words) -> Conversation:
    """The second call needs what the first returned."""
    thinking = not words.chance(0.2)
    subject, action = words.noun(), random_tool(words)
    key = f"{subject}_id"
    style = "_" in action.name or not action.name[0].islower() or action.name.islower()
    finder = Tool(
        name=f"find_{subject}" if style else f"find{subject.capitalize()}",
        verb="find",
        noun=subject,
        description=f"Find a {subject} by name.",
        parameters=(named("name", f"The name of the {subject}"),),
    )
    action = Tool(
        name=action.name, verb=action.verb, noun=action.noun, description=action.description, parameters=(named(key, f"The id of the {subject}"),)
    )
    person, code = (words.one((words.person(), words.phrase(), words.made_up())), words.one((words.code(), words.integer())))
    ask = words.one(
        (
            f"{action.verb} the {action.noun} of the {subject} {person}",
            f"for the {subject} {person}, {action.verb} the {action.noun}",
            f"find the {subject} {person} and {action.verb} its {action.noun}",
        )
    )
    messages = [*opening(words), {"role": "user", "content": polite(ask, words)}]
    first = call(finder, {"name": person}, 0)
    messages.append(
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [first],
            "reasoning_content": f"First I need {finder.name}, then {action.name}." if thinking else "",
        }
    )
    messages.append({"role": "tool", "tool_call_id": first["id"], "name": finder.name, "content": compact({key: code, "name": person})})
    sentences = act(messages, [(action, {key: code})], words, 1, thinking)
    if words.chance(0.3):
        messages.pop()
    else:
        messages.append({"role": "assistant", "content": " ".join(sentences)})
    return Conversation(messages=messages, tools=toolset(words, [finder, action]), thinking=thinking, kind="chain")


def named(name: str, description: str) -> Parameter:
    """A required string."""
    return Parameter(name=name, schema={"type": "string", "description": description}, required=True, draw=Words.made_up, spoken=name)


def opening(words: Words) -> list[Message]:
    """Now and then a system message."""
    texts = (
        "You are a helpful assistant.",
        "You are a helpful assistant with access to tools.",
        "Use the tools when they help.",
        "You are nano-K2.",
        "Answer briefly.",
        "You can call functions.",
        "Be polite and helpful.",
    )
    return [{"role": "system", "content": words.one(texts)}] if words.chance(0.25) else []


def missing(words: Words) -> Conversation:
    """A required argument is not in the request: ask for it, then call."""
    while True:
        tool = random_tool(words)
        if tool.parameters and tool.parameters[0].required:
            break
    arguments = draw_arguments(tool, words)
    gone = tool.parameters[0]
    known = {name: value for name, value in arguments.items() if name != gone.name}
    messages = [*opening(words), {"role": "user", "content": polite(bare_request(tool, known, words), words)}]
    messages.append({"role": "assistant", "content": f"What is the {gone.spoken}?", "reasoning_content": f"The {gone.spoken} is missing."})
    if words.chance(0.6):
        messages.append(
            {
                "role": "user",
                "content": words.one(("{}", "It is {}", "{}, please", "The " + gone.spoken + " is {}")).format(quoted(arguments[gone.name], words)),
            }
        )
        sentences = act(messages, [(tool, arguments)], words, 0, True)
        messages.append({"role": "assistant", "content": " ".join(sentences)})
    return Conversation(messages=messages, tools=toolset(words, [tool]), kind="missing")


def unneeded(words: Words, plain: Conversation) -> Conversation:
    """A plain conversation while tools that have nothing to do with it are declared."""
    useful = ("calc", "eval", "weather", "forecast", "time", "translat", "search", "news")
    declared = [d for d in toolset(words, [random_tool(words)]) if not any(part in d["function"]["name"].lower() for part in useful)]
    return Conversation(messages=[*opening(words), *plain.messages], tools=declared, thinking=plain.thinking, kind="unneeded")


def unfitting(words: Words) -> Conversation:
    """The request needs a tool that is not declared."""
    tool = any_tool(words)
    text = polite(bare_request(tool, draw_arguments(tool, words), words), words)
    decoys = [any_tool(words) for _ in range(words.rng.choice((1, 1, 2, 3)))]
    decoys = [d for d in decoys if d.name != tool.name and d.noun != tool.noun and (not d.family or d.family != tool.family)] or [random_tool(words)]
    declared = [d.declaration(words) for d in {d.name: d for d in decoys}.values()]
    messages = [*opening(words), {"role": "user", "content": text}]
    thinking = not words.chance(0.2)
    messages.append(
        {
            "role": "assistant",
            "content": "I'm sorry, but none of my tools can do that.",
            "reasoning_content": "None of the tools fits." if thinking else "",
        }
    )
    return Conversation(messages=messages, tools=declared, thinking=thinking, kind="unfitting")


def conversation(words: Words) -> Conversation:
    """The mix of all of these."""
    style = words.rng.random()
    if style < 0.74:
        return with_calls(words)
    if style < 0.86:
        return chain(words)
    return missing(words) if style < 0.91 else unfitting(words)
