"""Tools whose requests have to be understood: the declaration says a word, the request a synonym or what it means.

"order_sofa" is asked for with "I'd like a couch" or "I'd like a long seat for more than one person"; a tool whose name
says nothing is described by the dictionary and asked for by the word. WordNet supplies thousands of such words.
"""

from __future__ import annotations

from collections.abc import Sequence

from naturals import WISHES, chosen_slots, plural, slot
from toolspecs import VERBS, Tool, identifier
from wordnet import Entry
from words import UNKIND, Words, in_test

# What the families kept for testing are about; no tool here may be.
HELD = frozenset(
    "taxi cab hack ride population inhabitant recipe cook cooking cookery formula dish tide harbour harbor port printer print copy library loan "
    "renew renewal irrigation irrigate plant liter litre plot air quality".split()
)
ABOUT = frozenset("the a an or of to in for and with that which is by on as used especially usually being having its from who one at be".split())
HEADS = ("{v} {n}", "{v} {n}", "I want to {v} {n}", "I have to {v} {n}", "help me {v} {n}", "it's time to {v} {n}")
WANTS = ("I need {n}", "get me {n}", "I'd like {n}", "I want {n}", "can I have {n}")
ASKS = ("what about {n}", "tell me about {n}", "I'd like to know about {n}", "how is it with {n}", "what do we know of {n}", "any news of {n}")


def usable(text: str, test: bool) -> bool:
    """Whether a word or short phrase may be said: plain letters, of this split, no word that is held out."""
    parts = text.split()
    return (
        all(p.isascii() and p.isalpha() and p.islower() and p not in HELD and p not in UNKIND and in_test(p) == test for p in parts)
        and len(parts) < 3
    )


def short(entry: Entry) -> str:
    """The first meaning in a few words, or nothing."""
    gloss = entry.glosses[0].split(";")[0].strip() if entry.glosses else ""
    parts = gloss.split()
    plain = gloss.replace(" ", "").replace("-", "").replace("'", "").replace(",", "")
    known = {p.strip(",'").lower() for p in parts}
    fits = 3 <= len(parts) <= 11 and plain.isalpha() and plain.isascii() and not known & HELD and entry.word not in known
    return gloss if fits else ""


class Meanings:
    """The words of a lexicon that have a short meaning or a synonym, nouns and verbs apart; most common first."""

    def __init__(self, lexicon: Sequence[Entry], test: bool) -> None:
        def chosen(part: str, least: int) -> list[Entry]:
            rows = (e for e in lexicon if e.part == part and e.count >= least and len(e.word) > 2 and usable(e.word, test))
            return [e for e in rows if short(e) or any(usable(s, test) for s in e.synonyms)]

        self.test = test
        self.nouns, self.verbs = chosen("noun", 1), chosen("verb", 2)

    def ways(self, entry: Entry) -> list[str]:
        """The word and its synonyms."""
        return [entry.word, *(s for s in entry.synonyms if usable(s, self.test))]


def of(words: Words) -> Meanings:
    """The meanings of this source. ValueError if it was made without."""
    if words.meanings is None:
        raise ValueError("these words have no meanings: make them with `practice.source`")
    return words.meanings


def common(words: Words, rows: Sequence[Entry]) -> Entry:
    """Half of the time one of the two thousand most common."""
    return words.one(rows[: min(len(rows), 2000)] if words.chance(0.5) else rows)


def noun_phrase(text: str, gloss: bool, words: Words) -> str:
    """With an article, unless a meaning brings its own."""
    if gloss:
        return text if text.split()[0] in ABOUT else f"the {text}"
    return words.one((f"the {text}", f"my {text}", f"{words.article(text)} {text}", plural(text)))


def family(*entries: Entry) -> str:
    """Every word by which a tool could be meant, so that no other one in the list is about the same."""
    return " ".join(f"{e.word} {' '.join(e.synonyms)} {e.parent} {' '.join(w for w in short(e).split() if w not in ABOUT)}" for e in entries)


def parts_of(words: Words, style: str) -> tuple[list, list[str]]:  # type: ignore[type-arg]
    """No to three slots, and how a request tells the required ones."""
    taken: set[str] = set()
    count = words.rng.choice((0, 1, 1, 1, 2, 2, 3))
    made = [slot(each, words, taken, style, i < 2) for i, each in enumerate(chosen_slots(words, count))]
    parts = [p.told.format(f"{{{p.name}}}") for p in made if p.required]
    words.rng.shuffle(parts)
    return made, parts


def noun_tool(words: Words, verb: str = "") -> Tool:
    """The thing is declared in one way and asked for in another."""
    known, (style, inner) = of(words), words.style()
    entry = common(words, known.nouns)
    ways, gloss = known.ways(entry), short(entry)
    verb = verb or words.one(VERBS)
    declared, asked, opaque, says = words.one(ways), words.one(ways), False, False
    if gloss and (asked == declared or words.chance(0.5)):
        opaque = words.chance(0.4)
        says = not opaque
    said_so = words.one((f"{verb} {declared}", f"{verb} {declared}", f"{declared} {verb}"))
    stem = f"{words.made_up()} {words.one(('item', 'tool', 'thing', 'service'))}" if opaque else said_so
    thing = gloss if opaque else declared
    about = words.one(("{V} {t}.", "{V} {t}", "Use this to {v} {t}.", "Tool to {v} {t}")).format(V=verb.capitalize(), v=verb, t=thing)
    if not opaque and gloss and not says and words.chance(0.3):
        about = f"{about.rstrip('.')}: {gloss}."
    made, parts = parts_of(words, inner)
    frames = (*HEADS, *WANTS) if verb in WISHES else HEADS if words.chance(0.7) else ASKS
    rest = " ".join(parts)
    asks = tuple(f"{frame.format(v=verb, n=noun_phrase(gloss if says else asked, says, words))} {rest}".strip() for frame in frames)
    return Tool(
        name=identifier(words, stem, style), verb=verb, noun=declared, description=about, parameters=tuple(made), asks=asks, family=family(entry)
    )


def verb_tool(words: Words, noun: str = "") -> Tool:
    """What is done is declared in one way and asked for in another; the thing keeps its name."""
    known, (style, inner) = of(words), words.style()
    entry = common(words, known.verbs)
    ways, gloss = known.ways(entry), short(entry)
    noun = noun or words.noun()
    declared = words.one(ways)
    asked = words.one(ways)
    about = words.one(
        (f"{declared.capitalize()} {words.article(noun)} {noun}.", f"{declared.capitalize()} {plural(noun)}", f"Use this to {declared} the {noun}.")
    )
    if gloss and words.chance(0.5):
        about = f"{about.rstrip('.')} ({gloss})." if words.chance(0.6) else f"{gloss.capitalize()}: the {noun}."
    made, parts = parts_of(words, inner)
    asks = tuple(f"{head.format(v=asked, n=words.one((f'the {noun}', f'my {noun}', plural(noun))))} {' '.join(parts)}".strip() for head in HEADS)
    name = identifier(words, f"{declared} {noun}", style)
    return Tool(name=name, verb=declared, noun=noun, description=about, parameters=tuple(made), asks=asks, family=family(entry))


def meant_tool(words: Words) -> Tool:
    """Three of four times the noun is what has to be understood."""
    return noun_tool(words) if words.chance(0.75) else verb_tool(words)
