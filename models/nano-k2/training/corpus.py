"""Plain text from permissively licensed Debian documentation packages.

Reads packages unpacked under one folder (`dpkg-deb -x`), writes one `DOMAIN.txt.xz` per source whose documents
are separated by a form feed. Text is kept as light Markdown (headings, lists, fenced code) since that is the
shape of a chat answer. Paragraphs seen before (navigation, boilerplate, repeated trait docs) are dropped.

    python corpus.py --tree UNPACKED --out CORPUS
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lxml import etree, html

SEPARATOR = "\f"
BLOCKS = frozenset("p div section article main li ul ol dl dt dd table tr blockquote h1 h2 h3 h4 h5 h6 header figure body".split())
SKIPPED = frozenset("script style nav footer head button form svg img noscript iframe input select template".split())
NOISE = re.compile(
    r"\bsidebar|navheader|navfooter|sphinxsidebar|related|headerlink|breadcrumb|toc\b|footer|search|out-of-band|"
    r"copy-path|anchor|srclink|rightside|blanket-impl|synthetic-impl|pilcrow|toptext|bottomlang|toplang|line-numbers"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One package: where its pages are, which are left out, and under which licence they come."""

    domain: str
    package: str
    licence: str
    root: str
    skip: str = "$^"
    suffix: str = ".html"


def sources() -> tuple[Source, ...]:
    """Every source, with the licence that its Debian copyright file states for the documentation."""
    doc = "usr/share/doc/"
    return (
        Source(
            domain="python",
            package="python3.11-doc",
            licence="PSF-2.0",
            root=doc + "python3.11/html",
            skip=r"genindex|whatsnew/changelog|py-modindex|/search",
        ),
        Source(
            domain="postgresql",
            package="postgresql-doc-15",
            licence="PostgreSQL",
            root=doc + "postgresql-doc-15/html",
            skip=r"bookindex|release-|features-|sql-keywords",
        ),
        Source(
            domain="rust",
            package="rust-doc",
            licence="MIT or Apache-2.0",
            root=doc + "rust-doc/html",
            skip=r"html/(core|src|implementors|test)/|/arch/|core_arch|/simd/|/print\.html|/all\.html|unstable-book/library",
        ),
        Source(
            domain="django",
            package="python-django-doc",
            licence="BSD-3-Clause",
            root=doc + "python-django-doc/html",
            skip=r"genindex|/releases/|_modules|py-modindex",
        ),
        Source(domain="sqlalchemy", package="python-sqlalchemy-doc", licence="MIT", root=doc + "python-sqlalchemy-doc", skip=r"changelog|genindex"),
        Source(domain="nodejs", package="nodejs-doc", licence="MIT", root=doc + "nodejs/api", skip=r"all\.html"),
        Source(domain="cmake", package="cmake-doc", licence="BSD-3-Clause", root=doc + "cmake-data/html", skip=r"genindex|/release/"),
        Source(domain="apache", package="apache2-doc", licence="Apache-2.0", root=doc + "apache2-doc/manual/en"),
        Source(
            domain="tornado", package="python-tornado-doc", licence="Apache-2.0", root=doc + "python-tornado-doc", skip=r"genindex|_modules|/releases"
        ),
        Source(
            domain="sqlite",
            package="sqlite3-doc",
            licence="public domain",
            root=doc + "sqlite3",
            skip=r"releaselog|/changes\.html|keyword_index|/session/",
        ),
        Source(
            domain="pandas",
            package="python-pandas-doc",
            licence="BSD-3-Clause",
            root=doc + "python-pandas-doc/html",
            skip=r"genindex|whatsnew|_modules|cookbook",
        ),
        Source(
            domain="cryptography",
            package="python-cryptography-doc",
            licence="Apache-2.0 or BSD-3-Clause",
            root=doc + "python-cryptography-doc",
            skip=r"changelog|genindex",
        ),
        Source(
            domain="llvm",
            package="llvm-14-doc",
            licence="Apache-2.0 with LLVM exception",
            root=doc + "llvm-14-doc",
            skip=r"genindex|doxygen|ReleaseNotes",
        ),
        Source(
            domain="clang",
            package="clang-14-doc",
            licence="Apache-2.0 with LLVM exception",
            root=doc + "clang-14",
            skip=r"genindex|doxygen|ReleaseNotes",
        ),
        Source(
            domain="scipy", package="python-scipy-doc", licence="BSD-3-Clause", root=doc + "python-scipy-doc", skip=r"genindex|release\.|_modules"
        ),
        Source(domain="sympy", package="python-sympy-doc", licence="BSD-3-Clause", root=doc + "python-sympy-doc", skip=r"genindex|_modules"),
        Source(
            domain="sklearn",
            package="python-sklearn-doc",
            licence="BSD-3-Clause",
            root=doc + "python-sklearn-doc",
            skip=r"genindex|whats_new|_modules",
        ),
        Source(
            domain="astropy",
            package="python-astropy-doc",
            licence="BSD-3-Clause",
            root=doc + "python-astropy-doc",
            skip=r"genindex|whatsnew|changelog|_modules",
        ),
        Source(
            domain="skimage",
            package="python-skimage-doc",
            licence="BSD-3-Clause",
            root=doc + "python-skimage-doc",
            skip=r"genindex|release_|_modules",
        ),
        Source(domain="dask", package="python-dask-doc", licence="BSD-3-Clause", root=doc + "python-dask-doc", skip=r"genindex|changelog|_modules"),
        Source(
            domain="xarray", package="python-xarray-doc", licence="Apache-2.0", root=doc + "python-xarray-doc", skip=r"genindex|whats-new|_modules"
        ),
        Source(domain="nim", package="nim-doc", licence="MIT", root=doc + "nim", skip=r"theindex"),
        Source(domain="flask", package="python-flask-doc", licence="BSD-3-Clause", root=doc + "python-flask-doc", skip=r"genindex|changes|_modules"),
        Source(
            domain="werkzeug",
            package="python-werkzeug-doc",
            licence="BSD-3-Clause",
            root=doc + "python-werkzeug-doc",
            skip=r"genindex|changes|_modules",
        ),
        Source(
            domain="jinja", package="python-jinja2-doc", licence="BSD-3-Clause", root=doc + "python-jinja2-doc", skip=r"genindex|changes|_modules"
        ),
        Source(domain="requests", package="python-requests-doc", licence="Apache-2.0", root=doc + "python-requests-doc", skip=r"genindex|_modules"),
        Source(domain="setuptools", package="python-setuptools-doc", licence="MIT", root=doc + "python-setuptools-doc", skip=r"genindex|history"),
    )


def render(node: etree._Element, out: list[str], pre: bool) -> None:
    """Append the text of `node`; block elements begin and end with a newline, code is fenced."""
    tag = node.tag if isinstance(node.tag, str) else ""
    if tag in SKIPPED or not tag:
        return
    named = f"{node.get('class') or ''} {node.get('id') or ''}"
    if tag in ("a", "span", "nav", "div", "ul", "aside") and NOISE.search(named):
        return
    if tag == "br":
        out.append("\n")
    elif tag == "pre" and not pre:
        out.append("\n\n```\n" + "".join(node.itertext()).strip("\n") + "\n```\n\n")
        return
    elif tag in ("code", "tt") and not pre and len(node) == 0:
        out.append(f"`{node.text or ''}`")
        return
    block = tag in BLOCKS
    if block:
        out.append("\n" if tag in ("li", "tr", "dt", "dd") else "\n\n")
    if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
        out.append("#" * int(tag[1]) + " ")
    elif tag == "li":
        out.append("- ")
    elif tag in ("td", "th"):
        out.append(" ")
    if node.text:
        out.append(re.sub(r"\s+", " ", node.text))
    for child in node:
        render(child, out, pre)
        if child.tail:
            out.append(re.sub(r"\s+", " ", child.tail))
    if block:
        out.append("\n")


def page_text(raw: bytes) -> str:
    """The readable text of one HTML page, main content only."""
    try:
        root = html.fromstring(raw, parser=html.HTMLParser(encoding="utf-8", recover=True, remove_comments=True))
    except (etree.ParserError, ValueError):
        return ""
    for path in ("//main", "//*[@role='main']", "//*[@id='main-content']", "//*[@id='apicontent']", "//*[@id='page-content']", "//body"):
        found = root.xpath(path)
        if found:
            root = found[0]
            break
    out: list[str] = []
    render(root, out, False)
    text = "".join(out).replace("¶", "").replace("\xa0", " ").replace("\u200b", "")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def fresh(text: str, seen: set[bytes]) -> str:
    """`text` without the paragraphs that `seen` holds already; adds the rest to `seen`."""
    kept = []
    for paragraph in text.split("\n\n"):
        if len(paragraph) < 60:
            kept.append(paragraph)
            continue
        key = hashlib.blake2b(" ".join(paragraph.split()).encode(), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            kept.append(paragraph)
    return "\n\n".join(kept).strip()


def documents(source: Source, tree: Path, seen: set[bytes]) -> Iterator[str]:
    """Cleaned pages of one source, in path order, without near-empty ones."""
    skip = re.compile(source.skip)
    for path in sorted((tree / source.root).rglob("*" + source.suffix)):
        if skip.search(str(path)) or path.is_symlink() or path.stat().st_size > 3_000_000:
            continue
        text = fresh(page_text(path.read_bytes()), seen)
        prose = [line for line in text.split("\n") if len(line) > 50]
        if len(text) > 400 and len(prose) >= 3:
            yield text


def jargon(tree: Path) -> Iterator[str]:
    """Entries of the Jargon File (public domain), unwrapped."""
    raw = gzip.decompress((tree / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode("utf-8", "replace")
    for entry in re.split(r"\n(?=\S)", raw):
        text = re.sub(r"\n\s*\n\s*", "\n\n", entry)
        text = re.sub(r"(?<!\n)\n\s*", " ", text).strip()
        if len(text) > 200:
            yield text


def write(documents_of: Iterator[str], path: Path) -> tuple[int, int]:
    """Write the documents, xz-compressed; returns their number and characters."""
    texts = [text.replace(SEPARATOR, " ") for text in documents_of]
    with lzma.open(path, "wt", encoding="utf-8", preset=4) as file:
        file.write(SEPARATOR.join(texts))
    return len(texts), sum(map(len, texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="comma-separated domains")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    for source in sources():
        if args.only and source.domain not in args.only.split(","):
            continue
        count, chars = write(documents(source, args.tree, seen), args.out / f"{source.domain}.txt.xz")
        print(f"{source.domain:14} {count:6} documents {chars / 1e6:7.2f} MB  {source.licence}", flush=True)
    if not args.only or "jargon" in args.only:
        count, chars = write(jargon(args.tree), args.out / "jargon.txt.xz")
        print(f"{'jargon':14} {count:6} documents {chars / 1e6:7.2f} MB  public domain", flush=True)


if __name__ == "__main__":
    main()
