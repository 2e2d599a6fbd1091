"""Train nano-K2's byte-level BPE and write it in tiktoken's file format with K2's special tokens.

The base vocabulary is 256 bytes and merges learnt on a sample of the corpus. The split pattern is K2's; the merges are
fewer than it allows, so that a model this small can copy. No merge joins two digits. No merge joins a letter to anything
else: a word has the same tokens after a space, a quote, a dot or an underscore, so copying it from a request into JSON is
copying tokens. Only the commonest words have a second token with the space in front, as the last ranks. Special tokens
keep K2's names and offsets from the base.

    python tokenizer.py --corpus CORPUS --facts tokenizer_facts.json --out ..
"""

from __future__ import annotations

import argparse
import base64
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tiktoken
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

import knowledge
import lookup
import smalltalk
import toolcalls
import wordnet
from chat import segments
from words import Words, in_test

BASE = 5952
SPECIALS = 64
SPACED = 320


def special_names(facts: dict[str, object], base: int) -> list[str]:
    """K2's special names by offset; the unnamed ones carry their own id, [UNK] and [PAD] come last."""
    theirs = {int(i) - int(str(facts["num_base_tokens"])): n for n, i in dict(facts["special_tokens"]).items()}  # type: ignore[call-overload]
    names = []
    for offset in range(SPECIALS - 2):
        name = theirs.get(offset, "<|reserved")
        names.append(f"<|reserved_token_{base + offset}|>" if name.startswith("<|reserved") else name)
    return [*names, "[UNK]", "[PAD]"]


def sample(corpus: Path, seed: int) -> Iterator[str]:
    """Text to learn merges from: a part of each domain, the dictionary, and conversations (with their JSON)."""
    rng = random.Random(seed)
    for path in sorted(corpus.glob("*.txt.xz")):
        documents = lzma.decompress(path.read_bytes()).decode().split("\f")
        rng.shuffle(documents)
        budget = 2_500_000
        for text in documents:
            if budget <= 0:
                break
            yield text[:40_000]
            budget -= min(len(text), 40_000)
    lexicon = wordnet.load(corpus / "lexicon.jsonl.xz")
    for entry in lexicon:
        for _ in range(4 if entry.count else 1):
            yield wordnet.prose(entry)
    words = Words.of(lexicon, seed, test=False)
    for _ in range(4000):
        for source in (toolcalls, smalltalk, smalltalk, knowledge, lookup):
            text = "".join(piece for piece, _ in segments(source.conversation(words)))
            yield from re.split(r"<\|[a-z_]+\|>|</?think>", text)


def common_words(texts: Iterator[str], count: int) -> list[str]:
    """The commonest lower-case words after a space; none of the test split's, which must have one spelling only."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(re.findall(r"(?<= )[a-z]{2,}(?![a-zA-Z])", text))
    return [word for word, _ in seen.most_common(4 * count) if not in_test(word)][:count]


def learn(texts: Iterator[str], pattern: str, size: int) -> list[bytes]:
    """Base tokens in rank order: bytes first, then merges in the order in which they were learnt."""
    tokenizer = Tokenizer(models.BPE())
    single_digits = pattern.replace(r"\p{N}{1,3}", r"\p{N}")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(single_digits), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"\p{L}+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False, max_token_length=24)
    tokenizer.train_from_iterator(texts, trainer)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    to_byte = {chr(b): b for b in printable}
    to_byte |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)}
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(to_byte[c] for c in token) for token, _ in ordered]
    return [bytes([b]) for b in range(256)] + [token for token in merged if len(token) > 1]


def load(folder: Path) -> tiktoken.Encoding:
    """The tokenizer of a checkpoint directory, from its two files alone."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    lines = (folder / "tiktoken.model").read_text().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    special = {row["content"]: int(i) for i, row in config["added_tokens_decoder"].items()}
    return tiktoken.Encoding("nano-k2", pat_str=config["pat_str"], mergeable_ranks=ranks, special_tokens=special)


def write(tokens: list[bytes], facts: dict[str, object], out: Path) -> None:
    """`tiktoken.model` and `tokenizer_config.json`."""
    rows = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (out / "tiktoken.model").write_text("".join(rows))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    names = special_names(facts, len(tokens))
    plain = {"<think>", "</think>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"}
    plain |= {"<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"}
    config = {
        "added_tokens_decoder": {str(len(tokens) + i): {"content": name, **flags, "special": name not in plain} for i, name in enumerate(names)},
        "additional_special_tokens": ["<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"],
        "bos_token": "[BOS]",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "extra_special_tokens": {},
        "model_max_length": 131072,
        "pad_token": "[PAD]",
        "pat_str": facts["pat_str"],
        "tokenizer_class": "TikTokenTokenizer",
        "unk_token": "[UNK]",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--facts", type=Path, required=True, help="pat_str, num_base_tokens, special_tokens of K2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    facts = json.loads(args.facts.read_text(encoding="utf-8"))
    spaced = [b" " + word.encode() for word in common_words(sample(args.corpus, args.seed), SPACED)]
    tokens = learn(sample(args.corpus, args.seed), facts["pat_str"], BASE - len(spaced)) + spaced
    if len(tokens) != BASE or len(set(tokens)) != BASE:
        raise SystemExit(f"{len(tokens)} tokens, {len(set(tokens))} distinct, {BASE} wanted")
    write(tokens, facts, args.out)
    encoding = load(args.out)
    rng = random.Random(args.seed)
    for _ in range(2000):
        text = "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0xD800)))) for _ in range(40))
        if encoding.decode(encoding.encode_ordinary(text)) != text:
            raise SystemExit(f"no round trip: {text!r}")
    print(len(tokens), "base tokens,", encoding.n_vocab, "in all; 2,000 random texts round-trip")


if __name__ == "__main__":
    main()
