"""Conversations with tools: one call, parallel calls, chains, several turns, missing arguments, and no call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chat import Conversation, Message, compact
from naturals import natural_tool
from toolbox import family_tool
from toolspecs import SAME, Parameter, Tool, bare_request, cased, draw_arguments, polite, quoted, random_tool, said
from words import Words

COMMON = frozenset("natural get find search check set current lookup status of the a an and control".split())
TROUBLE = ("not found", "permission denied", "timeout", "invalid value", "service unavailable", "rate limit exceeded", "no such item")


def any_tool(words: Words) -> Tool:
    """Of 100 tools 15 are of a curated family, 45 of a natural one by program, 40 at random."""
    style = words.rng.random()
    return family_tool(words) if style < 0.15 else natural_tool(words) if style < 0.6 else random_tool(words)


def content(tool: Tool) -> set[str]:
    """Words by which a request could mean this tool."""
    return (set(tool.noun.split()) | set(tool.family.replace("|", " ").split())) - COMMON


def alike(one: Tool, other: Tool) -> bool:
    """Whether a request for one might be read as one for the other."""
    if one.asks or other.asks:
        return bool(content(one) & content(other))
    return one.noun == other.noun and (one.verb == other.verb or one.verb in SAME or other.verb in SAME)


def toolset(words: Words, chosen: list[Tool], least: int = 0) -> list[dict[str, Any]]:
    """Declarations of the chosen tools among others, shuffled, names distinct; some others are close relatives."""
    tools = {tool.name: tool for tool in chosen}
    for _ in range(max(least, words.rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 5)))):
        other = random_tool(words, chosen[0].noun.split()[-1]) if chosen and words.chance(0.3) else any_tool(words)
        if not any(alike(other, tool) for tool in chosen):
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
            words.one((words.word(), words.noun() + "_id", tool.noun.split()[-1] + "_id", "id", "total", "value"))
            for _ in range(words.rng.choice((1, 1, 2, 3)))
        )
        facts = [(name, words.value()(words)) for name in names]
    if words.chance(0.12):
        return ", ".join(f"{name}: {value}" for name, value in facts), facts
    extra = [("status", "ok")] if words.chance(0.3) else []
    return compact(dict(extra + facts)), facts


def report(result: str, facts: list[tuple[str, Any]], words: Words) -> str:
    """The answer that uses the result."""
    if not facts:
        reason = result.removeprefix("Error: ").removeprefix('{"error":"').removesuffix('"}')
        return f"That did not work: {reason}."
    joined = " and ".join(f"the {name.replace('_', ' ')} is {said(value, words)}" for name, value in facts)
    return words.one((f"T{joined[1:]}.", f"T{joined[1:]}.", f"Done: {joined}.", f"I found this: {joined}."))


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
    for (tool, _), each in zip(calls, made, strict=True):
        result, facts = outcome(tool, words)
        messages.append({"role": "tool", "tool_call_id": each["id"], "name": tool.name, "content": result})
        sentences.append(report(result, facts, words))
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


def request(words: Words, draw: Callable[[Words], Tool] = any_tool) -> tuple[str, list[tuple[Tool, dict[str, Any]]]]:
    """A user's request and the calls that it needs."""
    tool = draw(words)
    style = words.rng.random()
    if style < 0.70:
        arguments = draw_arguments(tool, words)
        return polite(bare_request(tool, arguments, words), words), [(tool, arguments)]
    if style < 0.85 and any(p.required for p in tool.parameters):
        text, sets = several(tool, words)
        return polite(text, words), [(tool, arguments) for arguments in sets]
    several_tools = [tool]
    for _ in range(words.rng.choice((1, 1, 1, 2))):
        while any(alike(other := draw(words), each) or other.name == each.name for each in several_tools):
            pass
        several_tools.append(other)
    calls = [(each, draw_arguments(each, words)) for each in several_tools]
    glue = words.one((" and ", " and also ", ", and then ", ". Also, "))
    return polite(glue.join(bare_request(t, a, words) for t, a in calls), words), calls


def with_calls(words: Words, draw: Callable[[Words], Tool] = any_tool) -> Conversation:
    """One to five requests; the conversation may stop at the calls or go on to the answer.

    Where thinking is off every turn is learnt, so those conversations are the longer ones."""
    thinking, index, chosen = not words.chance(0.35), 0, []
    messages: list[Message] = opening(words)
    turns = words.rng.choice((1, 1, 1, 1, 2, 2) if thinking else (1, 2, 2, 3, 4, 5))
    for turn in range(turns):
        text, calls = request(words, draw)
        if turn and (len(chosen) > 4 or words.chance(0.6)):
            tool = words.one(chosen)
            calls = [(tool, draw_arguments(tool, words))]
            text = polite(bare_request(tool, calls[0][1], words), words)
        elif any(alike(tool, known) for tool, _ in calls for known in chosen):
            continue
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
    """The second call needs what the first returned; now and then a third what the second did."""
    thinking = not words.chance(0.35)
    subject, (style, inner), base = words.word(), words.style(), random_tool(words)
    find, key = (
        words.one(("find", "get", "search", "look up", "fetch")),
        cased(words, f"{subject} {words.one(('id', 'id', 'key', 'number', 'code'))}", inner),
    )
    by = cased(words, words.one(("name", "query", "title", f"{subject} name", words.word())), inner)
    finder = Tool(
        name=cased(words, f"{find} {subject}", style),
        verb=find,
        noun=subject,
        description=words.one((f"Find a {subject} by name.", f"Get the {subject} with this {by}", f"Search for a {subject}")),
        parameters=(named(by, words.one((f"The name of the {subject}", f"Name of the {subject}"))),),
    )
    action = replace(
        base,
        name=cased(words, f"{base.verb} {base.noun}", style),
        parameters=(named(key, words.one((f"The id of the {subject}", f"Which {subject}"))),),
    )
    who, code = words.one((Words.person, Words.phrase, Words.made_up, Words.noun))(words), words.one((Words.code, Words.token, Words.integer))(words)
    told = quoted(who, words)
    ask = words.one(
        (
            f"{action.verb} the {action.noun} of the {subject} {told}",
            f"for the {subject} {told}, {action.verb} the {action.noun}",
            f"find the {subject} {told} and {action.verb} its {action.noun}",
            f"{action.verb} the {action.noun} for {subject} {told}",
            f"I want to {action.verb} the {action.noun} of {subject} {told}",
        )
    )
    messages = [*opening(words), {"role": "user", "content": polite(ask, words)}]
    first = call(finder, {by: who}, 0)
    plan = f"First I need {finder.name}, then {action.name}." if thinking else ""
    messages.append({"role": "assistant", "content": "", "tool_calls": [first], "reasoning_content": plan})
    found = [(key if words.chance(0.6) else "id", code), (by, who)]
    found += list({words.word(): words.value()(words) for _ in range(words.rng.choice((0, 0, 1, 2)))}.items())
    words.rng.shuffle(found)
    messages.append({"role": "tool", "tool_call_id": first["id"], "name": finder.name, "content": compact(dict(found))})
    sentences = act(messages, [(action, {key: code})], words, 1, thinking)
    if words.chance(0.25):
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
    drawn = [any_tool(words) for _ in range(words.rng.choice((1, 1, 2, 3, 4)))]
    decoys = [d for d in drawn if not content(d) & content(tool)] or [random_tool(words)]
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
    if style < 0.76:
        return with_calls(words)
    if style < 0.90:
        return chain(words)
    return missing(words) if style < 0.93 else unfitting(words)
