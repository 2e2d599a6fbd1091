"""Arithmetic, worked digit by digit inside `<think>`: the only place where a model this small can carry."""

from __future__ import annotations

from dataclasses import dataclass

from chat import Conversation
from words import Words, in_test

SIGN = {"+": ("+", "+", "plus"), "-": ("-", "-", "−", "minus"), "*": ("*", "x", "×", "times"), "/": ("/", "÷", "divided by")}

THINGS = (
    "apples pears books coins stamps marbles eggs cards pencils stones shells tickets boxes cookies flowers chairs keys photos letters toys".split()
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Two operands and an operator of + - * /; division asks for quotient and remainder."""

    a: int
    b: int
    op: str

    @property
    def result(self) -> str:
        if self.op == "/":
            quotient, rest = divmod(self.a, self.b)
            return f"{quotient} remainder {rest}" if rest else str(quotient)
        return str({"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.op])


def add_steps(a: int, b: int) -> str:
    """Columns from the right with the carry spelled out."""
    x, y, carry, steps = str(a)[::-1], str(b)[::-1], 0, []
    for i in range(max(len(x), len(y))):
        left, right = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        total = left + right + carry
        text = f"{left}+{right}" + (f"+{carry}" if carry else "") + f"={total}"
        carry = total // 10
        steps.append(text + (f", write {total % 10} carry 1" if carry else ""))
    if carry:
        steps.append("then 1")
    return "; ".join(steps) + f". {a}+{b}={a + b}."


def subtract_steps(a: int, b: int) -> str:
    """a >= b, columns from the right with the borrow spelled out."""
    x, y, borrow, steps = str(a)[::-1], str(b)[::-1], 0, []
    for i in range(len(x)):
        left, right = int(x[i]), int(y[i]) if i < len(y) else 0
        text = f"{left}-{right}" + ("-1" if borrow else "")
        value = left - right - borrow
        borrow = int(value < 0)
        steps.append(f"{text}: borrow, {left + 10}{text[len(str(left)) :]}={value + 10}" if borrow else f"{text}={value}")
    return "; ".join(steps) + f". {a}-{b}={a - b}."


def times_digit(a: int, digit: int) -> str:
    """a times one digit, columns from the right."""
    carry, steps = 0, []
    for figure in str(a)[::-1]:
        total = int(figure) * digit + carry
        text = f"{figure}*{digit}" + (f"+{carry}" if carry else "") + f"={total}"
        carry = total // 10
        steps.append(text + (f", write {total % 10} carry {carry}" if carry else ""))
    if carry:
        steps.append(f"then {carry}")
    return "; ".join(steps) + f". {a}*{digit}={a * digit}."


def multiply_steps(a: int, b: int) -> str:
    """Partial products by the digits of b, summed one after the other."""
    if b < 10:
        return times_digit(a, b)
    if a < 10:
        return f"{a}*{b}={b}*{a}. " + times_digit(b, a)
    total, out = 0, []
    for place, figure in enumerate(str(b)[::-1]):
        digit = int(figure)
        if digit == 0:
            continue
        part = a * digit * 10**place
        out.append(times_digit(a, digit) + (f" Shifted: {part}." if place else ""))
        if total:
            out.append(add_steps(total, part))
        total += part
    return " ".join(out)


def divide_steps(a: int, b: int) -> str:
    """Long division: bring down a digit, find the largest multiple, keep the rest."""
    rest, out = 0, []
    for figure in str(a):
        value = rest * 10 + int(figure)
        digit = value // b
        rest = value - digit * b
        out.append(f"{value}: {digit}*{b}={digit * b}, rest {rest}")
    return "; ".join(out) + f". {a}/{b}={a // b}" + (f" remainder {rest}." if rest else ".")


def thought(problem: Problem) -> str:
    a, b = problem.a, problem.b
    if problem.op == "+":
        return add_steps(a, b)
    if problem.op == "-":
        return subtract_steps(a, b) if a >= b else f"{a} is less than {b}, so the result is negative. {subtract_steps(b, a)} So {a}-{b}={a - b}."
    return multiply_steps(a, b) if problem.op == "*" else divide_steps(a, b)


def draw(words: Words) -> Problem:
    """A problem of this split: operands up to three digits, divisors up to two."""
    rng = words.rng
    while True:
        op = rng.choice("++--**/")
        a, b = (rng.randrange(0, 10 ** rng.choice((1, 2, 2, 3, 3, 3))) for _ in range(2))
        if op == "/":
            b = rng.randrange(1, 10 ** rng.choice((1, 1, 2)))
            a = b * rng.randrange(0, 100) if words.chance(0.5) else a
            if a > 999:
                continue
        if in_test(f"{a}{op}{b}") == words.test:
            return Problem(a=a, b=b, op=op)


def hard(words: Words) -> Problem:
    """A problem of this split among those that go wrong most: long products, two-digit divisors, differences near zero."""
    rng = words.rng
    while True:
        op = rng.choice("-*//")
        a, b = rng.randrange(100, 1000), rng.randrange(100, 1000)
        if op == "/":
            a, b = rng.randrange(0, 10 ** rng.choice((2, 3, 3))), rng.randrange(11, 100)
        elif op == "-":
            b = min(999, max(0, a + rng.choice((-90, -9, -1, 0, 1, 9, 90)) + rng.randrange(-9, 10)))
        if in_test(f"{a}{op}{b}") == words.test:
            return Problem(a=a, b=b, op=op)


def question(words: Words, p: Problem) -> str:
    """A phrasing of the problem: symbols, words, or an instruction with its own order of operands."""
    sign, a, b = words.one(SIGN[p.op]), p.a, p.b
    gap = " " if sign.isalpha() or " " in sign or words.chance(0.6) else ""
    core = f"{a}{gap}{sign}{gap}{b}"
    special = {
        "+": (f"Add {a} and {b}.", f"What is the sum of {a} and {b}?", f"Add {a} to {b}"),
        "-": (f"Subtract {b} from {a}.", f"What is {a} less {b}?", f"Take {b} away from {a}."),
        "*": (f"Multiply {a} by {b}.", f"What is the product of {a} and {b}?", f"multiply {a} and {b}"),
        "/": (f"Divide {a} by {b}.", f"How many times does {b} go into {a}?", f"divide {a} by {b}"),
    }[p.op]
    plain = (
        f"What is {core}?",
        f"what is {core}",
        f"What's {core}?",
        f"Calculate {core}.",
        f"{core} = ?",
        f"{core}",
        f"{core}=",
        f"How much is {core}?",
        f"Compute {core}",
        f"Can you work out {core}?",
        f"Please solve {core}.",
        f"Tell me {core}.",
        f"I need {core}, please.",
        f"Quick: {core}?",
        f"hey, what does {core} make?",
        f"Evaluate {core}.",
    )
    return words.one(special) if words.chance(0.25) else words.one(plain)


def answer(p: Problem) -> str:
    return f"{p.a} {p.op} {p.b} = {p.result}."


def story(words: Words) -> tuple[str, str, Problem]:
    """A word problem: (question, answer, what to compute)."""
    while True:
        p = draw(words)
        if p.op in "+*" or (p.op == "-" and p.a >= p.b):
            break
    who, thing = words.first(), words.one(THINGS) if words.chance(0.7) else words.made_up() + "s"
    a, b, result = p.a, p.b, p.result
    if p.op == "+":
        return (
            words.one(
                (
                    f"{who} has {a} {thing} and gets {b} more. How many {thing} does {who} have now?",
                    f"There are {a} {thing} on the table and {b} {thing} in the box. How many are there in all?",
                )
            ),
            f"{result} {thing}.",
            p,
        )
    if p.op == "-":
        return (
            words.one((f"{who} had {a} {thing} and gave away {b}. How many are left?", f"Of {a} {thing}, {b} were lost. How many {thing} remain?")),
            f"{result} {thing}.",
            p,
        )
    return (
        words.one(
            (
                f"{who} buys {a} boxes with {b} {thing} each. How many {thing} is that?",
                f"Each of {a} shelves holds {b} {thing}. How many {thing} are there?",
            )
        ),
        f"{result} {thing}.",
        p,
    )


def conversation(words: Words, harder: float = 0.0) -> Conversation:
    """One to three problems, `harder` of them hard ones; thinking is off in one of eight."""
    thinking, messages = not words.chance(0.12), []
    for _ in range(words.rng.choice((1, 1, 1, 2, 3))):
        if words.chance(0.2):
            ask, reply, problem = story(words)
        else:
            problem = hard(words) if harder and words.chance(harder) else draw(words)
            ask, reply = question(words, problem), answer(problem)
        messages.append({"role": "user", "content": ask})
        messages.append({"role": "assistant", "content": reply, "reasoning_content": thought(problem) if thinking else ""})
    return Conversation(messages=messages, thinking=thinking, kind="arithmetic")
