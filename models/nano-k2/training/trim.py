"""A smaller corpus for a second stage: every held-out document, and of the others as many as fit.

A second stage takes a tenth of its tokens from text, so that what is known is not lost; a part of the corpus is enough.
Documents are taken by hash, the same share of each domain; the lexicon, from which conversations are made, is kept whole.

    python trim.py --corpus CORPUS --out SMALL --share 0.4
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import shutil
from pathlib import Path

from batches import held_out
from corpus import SEPARATOR, write


def kept(text: str, share: float) -> bool:
    """Held-out documents, and `share` of the others."""
    return held_out(text) or hashlib.blake2b(text.encode(), digest_size=2).digest() < int(share * 65535).to_bytes(2, "big")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.4)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(args.corpus / "lexicon.jsonl.xz", args.out)
    for path in sorted(args.corpus.glob("*.txt.xz")):
        texts = lzma.decompress(path.read_bytes()).decode().split(SEPARATOR)
        print(path.name, len(texts), write((text for text in texts if kept(text, args.share)), args.out / path.name))


if __name__ == "__main__":
    main()
