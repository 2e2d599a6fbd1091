"""Seeded names, places, numbers, dates and made-up words. Training and test never share one.

A word belongs to the test split when its hash says so, whoever asks; made-up words make the supply endless, so
that copying, not remembering, is what pays.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wordnet import Entry

if TYPE_CHECKING:
    from synonyms import Meanings

FIRST = (
    "Anna Ben Carla David Elena Felix Grace Hugo Ida Jonas Kira Liam Mia Noah Olga Paul Quinn Rosa Sam Tara Uma Victor "
    "Wendy Xavier Yara Zoe Marta Omar Priya Kenji Aisha Lars Chloe Diego Emma Farid Greta Hana Ivan Julia Karim Lena "
    "Marco Nina Oscar Petra Rahul Sofia Tom Ursula Viktor Wei Yusuf Alice Bob Clara Dora Erik Fiona George Helen Ines "
    "Jack Kate Leo Maria Nadia Otto Pia Rita Stefan Thea Vera Walter Amir Bianca Cyrus Daria Elias Flora Gina Henry"
).split()
LAST = (
    "Smith Brown Garcia Novak Kowalski Schmidt Rossi Tanaka Nguyen Okafor Silva Jensen Dubois Petrov Khan Lee Martin "
    "Weber Moreau Santos Lindgren Costa Haddad Yamada Murphy Fischer Popov Andersen Romero Klein Walsh Becker"
).split()
CITY = (
    "Paris London Berlin Madrid Rome Vienna Prague Warsaw Lisbon Dublin Oslo Stockholm Helsinki Athens Cairo Lagos Nairobi "
    "Tokyo Seoul Beijing Shanghai Mumbai Delhi Bangkok Hanoi Jakarta Manila Sydney Melbourne Auckland Toronto Montreal "
    "Chicago Boston Seattle Denver Austin Miami Lima Bogota Santiago Quito Havana Kyoto Osaka Zurich Geneva Munich Hamburg "
    "Porto Seville Valencia Milan Naples Turin Lyon Nice Brussels Antwerp Rotterdam Copenhagen Bergen Tallinn Riga Vilnius "
    "Krakow Budapest Sofia Bucharest Istanbul Ankara Tunis Accra Dakar Oxford Cambridge Glasgow Leeds Bristol York"
).split()
SYLLABLE = (
    "ba be bo da de di do fa fe fi ga go ha he ja jo ka ke ki ko la le li lo lu ma me mi mo na ne ni no pa pe pi po ra re "
    "ri ro sa se si so ta te ti to va ve vi vo wa wi ya yo za ze zo bran dor fel gar hal kin lem mor nor pel quin ros sal "
    "tor ven wil zan ster ton ley mer der lan cor bel tal"
).split()
DOMAIN = ("example.com", "mail.test", "acme.io", "corp.net", "home.org", "shop.example", "uni.edu")
MONTH = "January February March April May June July August September October November December".split()

UNKIND = frozenset(
    "kill killer killing murder murderer rape rapist slave slavery negro nazi sex sexual penis vagina breast whore bitch bastard "
    "suicide torture corpse drug heroin cocaine prostitute incest genocide lynch nigger faggot jew gypsy terrorist".split()
)


def in_test(text: str) -> bool:
    """About one text in sixteen is kept for testing."""
    return zlib.crc32(text.lower().encode()) % 16 == 0


@dataclass(frozen=True, kw_only=True)
class Words:
    """A seeded source of words of one split; `nouns`, `verbs`, `adjectives` are plain single words by use.

    The second stage adds `pieces`, the texts of single tokens, which make names odder, and `meanings`."""

    rng: random.Random
    test: bool
    nouns: Sequence[str]
    verbs: Sequence[str]
    adjectives: Sequence[str]
    rare: Sequence[str]
    lexicon: Sequence[Entry] = field(repr=False)
    pieces: Sequence[str] = field(default=(), repr=False)
    meanings: Meanings | None = field(default=None, repr=False)

    @classmethod
    def of(cls, lexicon: Sequence[Entry], seed: int, test: bool) -> Words:
        def plain(part: str, least: int) -> list[str]:
            chosen = (e.word for e in lexicon if e.part == part and e.count >= least and e.word not in UNKIND)
            return [w for w in dict.fromkeys(chosen) if w.isascii() and w.isalpha() and w.islower() and 3 <= len(w) <= 11 and in_test(w) == test]

        return cls(
            rng=random.Random(seed),
            test=test,
            nouns=plain("noun", 3),
            verbs=plain("verb", 3),
            adjectives=plain("adjective", 3),
            rare=plain("noun", 1),
            lexicon=lexicon,
        )

    def pick(self, pool: Sequence[str]) -> str:
        """An item of the pool that belongs to this split (any item, if none does)."""
        for _ in range(200):
            word = self.rng.choice(pool)
            if in_test(word) == self.test:
                return word
        return self.rng.choice(pool)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def one(self, pool: Sequence[Any]) -> Any:
        """Any item: for phrasings, which both splits share."""
        return self.rng.choice(pool)

    def made_up(self) -> str:
        """A word that does not exist, of syllables or (one in four) of letters without any sense."""
        if self.pieces and self.chance(0.35):
            return self.glued().lower()
        while True:
            if self.rng.random() < 0.25:
                word = "".join(self.rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(self.rng.choice((3, 4, 5, 6, 7))))
            else:
                word = "".join(self.rng.choice(SYLLABLE) for _ in range(self.rng.choice((2, 2, 3, 3, 4))))
            if in_test(word) == self.test:
                return word

    def word(self) -> str:
        """A noun, common, rare or made up: for names of tools and parameters."""
        style = self.rng.random()
        return self.pick(self.nouns) if style < 0.5 else self.pick(self.rare) if style < 0.8 else self.made_up()

    def verb(self) -> str:
        return self.pick(self.verbs)

    def adjective(self) -> str:
        return self.pick(self.adjectives)

    def style(self) -> tuple[str, str]:
        """Spelling of a tool's name and of its parameters' names."""
        outer = self.rng.choice(("snake", "snake", "snake", "snake", "camel", "camel", "kebab", "pascal", "flat"))
        return outer, "camel" if outer in ("camel", "pascal") else "snake"

    def article(self, noun: str) -> str:
        return "an" if noun[0] in "aeiou" else "a"

    def glued(self) -> str:
        """Two single tokens as one made-up word, so that every token is copied somewhere, whichever words are kept for testing."""
        while True:
            word = self.one(self.pieces) + self.one(self.pieces)
            if in_test(word) == self.test:
                return word

    def odd(self) -> str:
        """A name nobody expects: two tokens in their own spelling, or any word of the dictionary with a capital."""
        return self.glued() if self.chance(0.5) else self.pick(self.one((self.nouns, self.adjectives, self.rare, self.verbs))).capitalize()

    def first(self) -> str:
        if self.pieces and self.chance(0.25):
            return self.odd()
        return self.made_up().capitalize() if self.chance(0.5) else self.pick(FIRST)

    def person(self) -> str:
        last = self.made_up().capitalize() if self.chance(0.5) else self.pick(LAST)
        return f"{self.first()} {last}" if self.chance(0.6) else self.first()

    def city(self) -> str:
        if self.pieces and self.chance(0.35):
            return self.odd() if self.chance(0.8) else f"{self.odd()} {self.odd()}"
        return self.made_up().capitalize() if self.chance(0.45) else self.pick(CITY)

    def noun(self) -> str:
        return self.pick(self.nouns) if self.rng.random() < 0.7 else self.pick(self.rare)

    def phrase(self) -> str:
        """Two to five words that might be a title or a query."""
        if self.pieces and self.chance(0.15):
            return " ".join(self.odd() for _ in range(self.rng.choice((1, 2, 3))))
        words = [self.pick(self.adjectives), self.noun()]
        words += [self.noun() for _ in range(self.rng.choice((0, 0, 1, 2)))]
        text = " ".join(words)
        return text.capitalize() if self.chance(0.3) else text

    def sentence(self) -> str:
        """A short message that somebody might send."""
        templates = (
            f"the {self.noun()} is {self.pick(self.adjectives)}",
            f"please bring the {self.noun()}",
            f"I will be late for the {self.noun()}",
            f"see you in {self.city()}",
            f"{self.first()} has the {self.noun()}",
            f"meet me at the {self.noun()} at {self.clock()}",
            f"don't forget the {self.noun()}",
            f"the {self.noun()} starts on {self.date()}",
            f"happy birthday, {self.first()}",
            f"call {self.first()} back",
        )
        text = self.one(templates)
        return text[0].upper() + text[1:] if self.chance(0.5) else text

    def integer(self) -> int:
        return self.rng.randrange(1, self.rng.choice((10, 10, 100, 100, 1000, 10000, 1000000)))

    def decimal(self) -> float:
        return round(self.rng.uniform(0, self.rng.choice((1, 10, 100, 1000))), self.rng.choice((1, 2)))

    def code(self) -> str:
        """An identifier like those of orders, files and accounts."""
        if self.pieces and self.chance(0.15):
            return self.one((self.odd, lambda: f"0{self.integer()}", lambda: f"{self.glued()}{self.integer()}"))()
        digits = "".join(self.rng.choice("0123456789") for _ in range(self.rng.choice((3, 4, 5, 6))))
        letters = "".join(self.rng.choice("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(self.rng.choice((1, 2, 3))))
        shape = self.one(("{l}-{d}", "{l}{d}", "{d}", "{w}_{d}", "{w}-{d}", "{h}"))
        lower = "".join(self.rng.choice("0123456789abcdef") for _ in range(8))
        return shape.format(l=letters, d=digits, w=self.made_up(), h=lower)

    def token(self) -> str:
        """An odd string that only copying gets right: mixed case, digits, signs."""
        alphabet = self.rng.choice(
            ("abcdefghijkmnpqrstuvwxyz0123456789", "ABCDEFGHJKLMNPQRSTUVWXYZ23456789", "abcXYZ0189_-", "aAbBcCdDeEfFgG0123456789")
        )
        parts = ["".join(self.rng.choice(alphabet) for _ in range(self.rng.choice((2, 3, 4, 5)))) for _ in range(self.rng.choice((1, 2, 2, 3)))]
        return self.rng.choice(("-", "_", ".", "/", ":", "")).join(parts)

    def version(self) -> str:
        return self.rng.choice(("", "", "v")) + ".".join(str(self.rng.randrange(0, 30)) for _ in range(self.rng.choice((2, 3, 3))))

    def phone(self) -> str:
        digits = [str(self.rng.randrange(10 ** (n - 1), 10**n)) for n in self.rng.choice(((2, 3, 4), (3, 3, 4), (3, 7), (4, 5)))]
        return self.rng.choice(("", "+", "0")) + self.rng.choice((" ", "-", "")).join(digits)

    def handle(self) -> str:
        return self.rng.choice("@#") + self.word()

    def value(self) -> Callable[[Words], str | int | float]:
        """A kind of value, as a way to draw it."""
        return self.rng.choice(
            (
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
                Words.token,
                Words.integer,
                Words.decimal,
                Words.version,
                Words.phone,
                Words.handle,
                Words.word,
                Words.code,
            )
        )

    def email(self) -> str:
        return f"{self.first().lower()}{self.one(('', '.' + self.made_up(), str(self.integer())))}@{self.one(DOMAIN)}"

    def date(self) -> str:
        year, month, day = (self.rng.randrange(2019, 2032), self.rng.randrange(1, 13), self.rng.randrange(1, 29))
        return f"{year}-{month:02}-{day:02}" if self.chance(0.7) else f"{MONTH[month - 1]} {day}"

    def clock(self) -> str:
        return f"{self.rng.randrange(0, 24):02}:{self.rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02}"

    def path(self) -> str:
        ending = self.one(("txt", "csv", "json", "py", "md", "png", "pdf", "log", "yaml"))
        folder = self.one(("", "/tmp/", "/home/" + self.first().lower() + "/", "data/", self.made_up() + "/"))
        return f"{folder}{self.one((self.noun(), self.made_up()))}.{ending}"

    def url(self) -> str:
        return f"https://{self.made_up()}.{self.one(('com', 'org', 'io', 'net'))}/{self.one((self.noun(), self.made_up()))}"
