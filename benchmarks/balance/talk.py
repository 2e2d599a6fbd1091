"""People who chat with nano-K2: the load that its experts really get."""

from __future__ import annotations

import asyncio
import random

import httpx

OPENINGS = (
    "hello there",
    "good morning, how are you today?",
    "I had a bad day",
    "who are you?",
    "what is your name, and who made you?",
    "what can you do?",
    "tell me about Orrery",
    "what is a mixture of experts?",
    "why do experts live in processes of their own?",
    "what does the router do?",
    "what is an epoch of a placement?",
    "what happens when a worker dies?",
    "tell me a joke",
    "do you like music?",
    "what should I have for dinner?",
    "I am learning to cook",
    "my friend {name} likes tea",
    "my name is {name}, can you remember that?",
    "I have {count} cats, is that too many?",
    "what is {count} plus {more}?",
    "what does the word river mean?",
    "what is a lantern?",
    "is it going to rain tomorrow?",
    "thank you, goodbye",
)
NAMES = ("Ada", "Bruno", "Chidi", "Dilek", "Emil", "Farida", "Goran", "Hana", "Imre", "Jun")


async def talk(http: httpx.AsyncClient, url: str, model: str, seed: str, tokens: int) -> None:
    """One conversation of two questions after another, until cancelled.

    Raises:
        httpx.HTTPError: a request failed.
    """
    draw = random.Random(seed)
    while True:
        messages: list[dict[str, str]] = []
        for _ in range(2):
            question = draw.choice(OPENINGS).format(
                name=draw.choice(NAMES), count=draw.randint(2, 99), more=draw.randint(2, 99)
            )
            messages.append({"role": "user", "content": question})
            answer = await http.post(
                f"{url}/v1/chat/completions",
                json={"model": model, "messages": messages, "max_tokens": tokens},
            )
            said = answer.raise_for_status().json()["choices"][0]["message"]["content"]
            messages.append({"role": "assistant", "content": said or ""})
            await asyncio.sleep(0)
