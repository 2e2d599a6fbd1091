"""WordNet's database files as a lexicon: words with part of speech, meanings, synonyms and how common they are.

python wordnet.py --tree UNPACKED --out CORPUS      writes lexicon.jsonl.xz
"""

from __future__ import annotations

import argparse
import json
import lzma
from dataclasses import asdict, dataclass
from pathlib import Path

PARTS = (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r"))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One word in one part of speech: glosses in order of use, examples, synonyms, tagged occurrences."""

    word: str
    part: str
    glosses: tuple[str, ...]
    examples: tuple[str, ...]
    synonyms: tuple[str, ...]
    parent: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Synset:
    """One meaning: its words, definition, example sentences and the offset of its hypernym (or -1)."""

    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...]
    parent: int


def plain(word: str) -> str:
    """WordNet writes spaces as underscores and marks adjective positions in brackets."""
    return word.split("(")[0].replace("_", " ")


def synsets(path: Path) -> dict[int, Synset]:
    """All synsets of one `data.POS` file by byte offset."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split(" ")
        count = int(fields[3], 16)
        words = tuple(plain(fields[4 + 2 * i]) for i in range(count))
        pointers = fields[5 + 2 * count :]
        parent = next((int(pointers[i + 1]) for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@"), -1)
        pieces = [piece.strip() for piece in gloss.strip().split("; ")]
        examples = tuple(piece.strip('"') for piece in pieces if piece.startswith('"') and piece.endswith('"'))
        meaning = "; ".join(piece for piece in pieces if not piece.startswith('"'))
        found[int(fields[0])] = Synset(words=words, gloss=meaning, examples=examples, parent=parent)
    return found


def counts(path: Path) -> dict[tuple[str, str], int]:
    """Tagged occurrences by (lemma, part letter), summed over meanings, from `cntlist.rev`."""
    letters = {"1": "n", "2": "v", "3": "a", "5": "a", "4": "r"}
    total: dict[tuple[str, str], int] = {}
    for line in path.read_text().splitlines():
        key, _, number = line.split(" ")
        lemma, _, rest = key.partition("%")
        index = (lemma.replace("_", " "), letters[rest[0]])
        total[index] = total.get(index, 0) + int(number)
    return total


def entries(folder: Path) -> list[Entry]:
    """The whole lexicon, most common words first."""
    tagged = counts(folder / "cntlist.rev")
    result = []
    for part, letter in PARTS:
        meanings = synsets(folder / f"data.{part}")
        for line in (folder / f"index.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue
            fields = line.split()
            word = fields[0].replace("_", " ")
            chosen = [meanings[int(offset)] for offset in fields[-int(fields[2]) :]][:4]
            cased = next((w for w in chosen[0].words if w.lower() == word), word)
            first = chosen[0]
            result.append(
                Entry(
                    word=cased,
                    part={"adj": "adjective", "adv": "adverb"}.get(part, part),
                    glosses=tuple(meaning.gloss for meaning in chosen),
                    examples=tuple(text for meaning in chosen[:2] for text in meaning.examples)[:3],
                    synonyms=tuple(w for w in first.words if w.lower() != word),
                    parent=meanings[first.parent].words[0] if first.parent in meanings else "",
                    count=tagged.get((word, letter), 0),
                )
            )
    return sorted(result, key=lambda entry: (-entry.count, entry.word, entry.part))


def load(path: Path) -> list[Entry]:
    """Read `lexicon.jsonl.xz` back."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Entry(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows]


def prose(entry: Entry) -> str:
    """One entry as a paragraph of a dictionary."""
    lines = [f"{entry.word} ({entry.part})"]
    lines += [f"{number}. {gloss}" for number, gloss in enumerate(entry.glosses, 1)]
    if entry.synonyms:
        lines.append("Synonyms: " + ", ".join(entry.synonyms))
    lines += [f'Example: "{text}"' for text in entry.examples[:2]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = entries(args.tree / "usr/share/wordnet")
    with lzma.open(args.out / "lexicon.jsonl.xz", "wt", encoding="utf-8", preset=4) as file:
        for entry in found:
            file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
    print(len(found), "entries,", sum(entry.count > 0 for entry in found), "with tagged occurrences")


if __name__ == "__main__":
    main()
