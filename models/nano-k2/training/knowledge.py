"""Words and their meanings, short Python, capitals, and exercises in copying and rearranging what was said."""

from __future__ import annotations

from chat import Conversation, Message
from smalltalk import small, system
from wordnet import Entry
from words import Words

CAPITALS = (
    "France=Paris,Germany=Berlin,Spain=Madrid,Italy=Rome,Portugal=Lisbon,Austria=Vienna,Poland=Warsaw,Norway=Oslo,Sweden=Stockholm,"
    "Finland=Helsinki,Denmark=Copenhagen,Greece=Athens,Ireland=Dublin,Hungary=Budapest,Romania=Bucharest,Bulgaria=Sofia,Turkey=Ankara,"
    "Russia=Moscow,Ukraine=Kyiv,Egypt=Cairo,Kenya=Nairobi,Nigeria=Abuja,Morocco=Rabat,Ghana=Accra,Ethiopia=Addis Ababa,Japan=Tokyo,"
    "China=Beijing,India=New Delhi,Thailand=Bangkok,Vietnam=Hanoi,Indonesia=Jakarta,Iran=Tehran,Iraq=Baghdad,Israel=Jerusalem,"
    "Canada=Ottawa,Mexico=Mexico City,Brazil=Brasilia,Argentina=Buenos Aires,Chile=Santiago,Peru=Lima,Colombia=Bogota,Cuba=Havana,"
    "Australia=Canberra,New Zealand=Wellington,the Netherlands=Amsterdam,Belgium=Brussels,Switzerland=Bern,Croatia=Zagreb,"
    "Serbia=Belgrade,Iceland=Reykjavik,Estonia=Tallinn,Latvia=Riga,Lithuania=Vilnius,Slovakia=Bratislava,Slovenia=Ljubljana,"
    "Nepal=Kathmandu,Pakistan=Islamabad,Mongolia=Ulaanbaatar,South Korea=Seoul,the United States=Washington,the United Kingdom=London,"
    "the Czech Republic=Prague"
)
FACTS: tuple[tuple[str, str], ...] = (
    ("How many days are in a week?", "A week has seven days."),
    ("How many months are in a year?", "A year has twelve months."),
    ("How many hours are in a day?", "A day has 24 hours."),
    ("How many minutes are in an hour?", "An hour has 60 minutes."),
    ("What colour is the sky?", "On a clear day the sky is blue."),
    ("What colour is grass?", "Grass is green."),
    ("Which planet is the largest?", "Jupiter is the largest planet of the solar system."),
    ("Which planet is closest to the sun?", "Mercury is the planet closest to the sun."),
    ("What is water made of?", "Water is made of hydrogen and oxygen."),
    ("At what temperature does water boil?", "Water boils at 100 degrees Celsius at sea level."),
    ("At what temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("How many legs does a dog have?", "A dog has four legs."),
    ("What do bees make?", "Bees make honey."),
    ("What do cows give?", "Cows give milk."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("What is the largest ocean?", "The Pacific is the largest ocean."),
    ("What is the highest mountain?", "Mount Everest is the highest mountain on Earth."),
    ("What is the longest river?", "The Nile and the Amazon are the longest rivers."),
    ("What gas do plants take in?", "Plants take in carbon dioxide."),
    ("What is the speed of light?", "Light travels at about 300,000 kilometres per second."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    ("What is the opposite of big?", "The opposite of big is small."),
    ("What comes after Monday?", "Tuesday comes after Monday."),
    ("Which month comes after June?", "July comes after June."),
    ("What is HTTP?", "HTTP is the protocol that browsers and servers use to exchange web pages."),
    ("What is gRPC?", "gRPC is a framework for remote procedure calls that sends protocol buffers over HTTP/2."),
    ("What is Ray?", "Ray is a framework to run Python programs on a cluster of machines."),
    ("What is Kubernetes?", "Kubernetes is a system that runs containers on a cluster of machines."),
    ("What is Linux?", "Linux is a free operating system kernel."),
    ("What is Python?", "Python is a programming language that is easy to read."),
    ("What is a GPU?", "A GPU is a processor with many cores that work in parallel."),
    ("What is JSON?", "JSON is a text format for data, made of objects, lists, strings and numbers."),
    ("What is Git?", "Git is a system that keeps the history of files."),
)
CODE: tuple[tuple[str, str, str], ...] = (
    (
        "reverse a list",
        "{x}.reverse()  # in place\nreversed_{x} = {x}[::-1]  # a copy",
        "`reverse` changes the list itself, a slice makes a new one.",
    ),
    ("reverse a string", '{x} = "{w}"\nprint({x}[::-1])', "A slice with step -1 walks backwards."),
    ("sort a list", "{x}.sort()\nordered = sorted({x})", "`sort` works in place, `sorted` returns a new list."),
    ("read a file", 'with open("{w}.txt") as file:\n    {x} = file.read()', "The file is closed at the end of the block."),
    ("write to a file", 'with open("{w}.txt", "w") as file:\n    file.write({x})', 'Mode "w" replaces what was there.'),
    ("loop over a list", "for item in {x}:\n    print(item)", "Each item comes in order."),
    ("loop with an index", "for index, item in enumerate({x}):\n    print(index, item)", "`enumerate` counts from zero."),
    ("define a function", "def {w}({x}):\n    return {x} * 2", "`def` names the function, `return` gives its value."),
    ("make a dictionary", '{x} = {{"{w}": {n}}}\nprint({x}["{w}"])', "Keys are looked up in square brackets."),
    ("loop over a dictionary", "for key, value in {x}.items():\n    print(key, value)", "`items` gives pairs."),
    ("join strings", '", ".join({x})', "The separator comes first."),
    ("split a string", 'parts = {x}.split(",")', "Without an argument it splits at white space."),
    ("convert a string to an integer", '{x} = int("{n}")', "A ValueError is raised if it is no number."),
    ("convert a number to a string", "{x} = str({n})", "`str` works for every object."),
    ("find the length of a list", "len({x})", "`len` works for strings and dictionaries too."),
    ("find the largest number in a list", "max({x})", "`min` gives the smallest."),
    ("sum a list", "sum({x})", "The list must hold numbers."),
    ("remove duplicates from a list", "unique = list(dict.fromkeys({x}))", "This keeps the order."),
    ("check if a key is in a dictionary", 'if "{w}" in {x}:\n    print("found")', "`in` looks at the keys."),
    ("catch an exception", "try:\n    {x} = int(text)\nexcept ValueError:\n    {x} = {n}", "Only the named error is caught."),
    ("make a class", "class {W}:\n    def __init__(self, {x}):\n        self.{x} = {x}", "`__init__` runs when an object is made."),
    ("use a list comprehension", "squares = [n * n for n in {x}]", "It builds a list from a loop in one line."),
    ("filter a list", "even = [n for n in {x} if n % 2 == 0]", "The condition stands at the end."),
    ("get the last element of a list", "{x}[-1]", "Negative indices count from the end."),
    ("add an item to a list", "{x}.append({n})", "`insert` puts it elsewhere."),
    ("remove an item from a list", "{x}.remove({n})", "The first equal item is removed."),
    ("copy a list", "copy = {x}[:]", "`copy.deepcopy` copies what is inside, too."),
    ("sleep for some seconds", "import time\n\ntime.sleep({n})", "The argument is in seconds."),
    ("get a random number", "import random\n\n{x} = random.randint(1, {n})", "Both ends are included."),
    ("read JSON", "import json\n\n{x} = json.loads(text)", "`json.load` reads from a file."),
    ("write JSON", "import json\n\ntext = json.dumps({x})", "`indent=2` makes it readable."),
    ("format a string", 'f"{w}: {{{x}}}"', "Names in braces are replaced by their values."),
    ("check if a number is even", "def is_even({x}):\n    return {x} % 2 == 0", "`%` gives the remainder."),
    ("compute a factorial", "def factorial({x}):\n    return 1 if {x} < 2 else {x} * factorial({x} - 1)", "The function calls itself."),
    ("print numbers from 1 to {n}", "for {x} in range(1, {n} + 1):\n    print({x})", "The end of `range` is not included."),
    ("swap two variables", "{x}, {w} = {w}, {x}", "Python unpacks the pair."),
    ("count words in a text", "from collections import Counter\n\n{x} = Counter(text.split())", "`most_common` lists the most frequent."),
    ("use a while loop", "while {x} < {n}:\n    {x} += 1", "It runs as long as the condition holds."),
    ("import a module", "import math\n\nprint(math.sqrt({n}))", "Names of the module follow a dot."),
    ("write hello world", 'print("Hello, world!")', "`print` writes to the terminal."),
    ("add two numbers", "def add(a, b):\n    return a + b", "Call it as `add(1, 2)`."),
)


def entry(words: Words) -> Entry:
    """A common word far more often than a rare one."""
    top = words.one((1500, 5000, 5000, 15000, 24000))
    while True:
        found = words.lexicon[words.rng.randrange(min(top, len(words.lexicon)))]
        if found.word.isascii() and found.glosses[0]:
            return found


def dictionary(words: Words) -> tuple[str, str]:
    """A question about a word and the answer from WordNet."""
    e = entry(words)
    quoted = words.one(("{}", "{}", '"{}"', "'{}'")).format(e.word)
    style = words.rng.random()
    if style < 0.12 and e.synonyms:
        return words.one(
            (f"What is a synonym of {quoted}?", f"another word for {quoted}", f"Give me a synonym for {quoted}.")
        ), f"A synonym of {e.word} is {e.synonyms[0]}."
    if style < 0.2 and e.parent and e.part == "noun":
        return (f"What kind of thing is {quoted}?", f"{e.word[0].upper()}{e.word[1:]} is a kind of {e.parent}.")
    if style < 0.3 and e.examples:
        return words.one((f"Use {quoted} in a sentence.", f"give me an example with {quoted}")), f"{e.examples[0][0].upper()}{e.examples[0][1:]}."
    ask = words.one(
        (
            f"What does {quoted} mean?",
            f"what does {quoted} mean",
            f"Define {quoted}.",
            f"What is the meaning of {quoted}?",
            f"meaning of {quoted}",
            f"Explain the word {quoted}.",
            f"what is {quoted}",
            f"What is {quoted}?",
            f"definition of {quoted}",
            f"Can you tell me what {quoted} means?",
            f"I don't know the word {quoted}.",
            f"define {quoted}",
        )
    )
    return ask, f"{e.word} ({e.part}): {e.glosses[0]}."


def python(words: Words) -> tuple[str, str]:
    """How to do something in Python: a fenced answer and one sentence."""
    task, code, remark = words.one(CODE)
    filled = {"x": words.one(("items", "values", "numbers", "data", "names", words.noun())), "w": words.noun(), "n": words.integer()}
    filled["W"] = filled["w"].capitalize()
    task = task.format(**filled)
    ask = words.one(
        (
            f"How do I {task} in Python?",
            f"how to {task} in python",
            f"Show me how to {task} in Python.",
            f"python: {task}",
            f"Write Python code to {task}.",
            f"How can I {task}?",
            f"Can you {task} in Python?",
        )
    )
    return ask, f"```python\n{code.format(**filled)}\n```\n{remark}"


def capital(words: Words) -> tuple[str, str]:
    pair = words.one(CAPITALS.split(","))
    country, city = pair.split("=")
    if words.chance(0.3):
        return words.one(
            (f"Which country has the capital {city}?", f"{city} is the capital of which country?")
        ), f"{city} is the capital of {country}."
    return words.one(
        (
            f"What is the capital of {country}?",
            f"capital of {country}",
            f"Which city is the capital of {country}?",
            f"what's the capital of {country}?",
        )
    ), f"The capital of {country} is {city}."


def copying(words: Words) -> tuple[str, str]:
    """Repeat, spell, sort, pick: everything that can be read off the question."""
    items = [words.one((words.noun, words.made_up, words.city))() for _ in range(words.rng.choice((3, 4, 5)))]
    text, word, numbers = (
        words.sentence(),
        words.one((words.noun(), words.made_up())),
        [words.integer() for _ in range(words.rng.choice((3, 4, 5)))],
    )
    listed = ", ".join(items)
    return words.one(
        (
            (f"Repeat after me: {text}", text),
            (f"Say: {text}", text),
            (f'Please say "{text}"', text),
            (f"Write {word} in capital letters", word.upper()),
            (f"Spell the word {word}", "-".join(word)),
            (f"Spell {word}", "-".join(word)),
            (f"What is the first letter of {word}?", f"The first letter of {word} is {word[0]}."),
            (f"What is the last letter of {word}?", f"The last letter of {word} is {word[-1]}."),
            (f"What is the first word of: {text}", f"The first word is {text.split()[0]}."),
            (f"What is the last of these: {listed}?", f"The last one is {items[-1]}."),
            (f"What is the first of these: {listed}?", f"The first one is {items[0]}."),
            (f"Make a list of {listed}", "\n".join(f"- {item}" for item in items)),
            (f"Number these: {listed}", "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))),
            (f"Which is larger, {numbers[0]} or {numbers[1]}?", f"{max(numbers[:2])} is larger." if numbers[0] != numbers[1] else "They are equal."),
            (f"Turn this into JSON: name {items[0]}, value {numbers[0]}", f'{{"name":"{items[0]}","value":{numbers[0]}}}'),
            (f"How many items are here: {listed}?", f"There are {len(items)} items."),
            (f"Write the items in reverse order: {listed}", ", ".join(items[::-1])),
            (f"Join these words with a dash: {listed}", "-".join(items)),
        )
    )


def fact(words: Words) -> tuple[str, str]:
    ask, reply = words.one(FACTS)
    return (ask if words.chance(0.6) else ask[0].lower() + ask[1:].rstrip("?")), reply


def exchange(words: Words) -> tuple[str, str]:
    """One question and its answer, from any of these."""
    style = words.rng.random()
    for limit, source in ((0.5, dictionary), (0.65, python), (0.72, capital), (0.8, fact), (1.0, copying)):
        if style < limit:
            return source(words)
    return small(words)


def conversation(words: Words) -> Conversation:
    """One to three exchanges."""
    messages: list[Message] = [{"role": "system", "content": system(words)}] if words.chance(0.2) else []
    for _ in range(words.rng.choice((1, 1, 1, 2, 3))):
        ask, reply = small(words) if words.chance(0.1) else exchange(words)
        messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return Conversation(messages=messages, thinking=not words.chance(0.1), kind="knowledge")
