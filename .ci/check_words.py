"""Fails on words that the project gave up for another one. A word per thing: docs/glossary.md has those in use.

A word is looked for in prose and in the parts of identifiers, snake or camel, whatever its case.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# `*` is any ending. A word with underscores is looked for in identifiers only: as prose it may be plain English.
WORDS = {
    "wish*": "intent, request, ask",
    "artefact*": "artifact",
    "patiently": "retry_while_unavailable",
    "surroundings": "context",
    "mischief": "hostile entries, faults",
    "errand*": "scenario",
    "weather": "store faults",
    "zombie*": "stale owner",
    "pretended": "fake",
    "enclosure*": "namespaces",
    "heed*": "apply, raise_if_asked",
    "preflight*": "logprob probe",
    "rereading": "retry_corrupt_reads",
    "odd_answers": "degenerate_answers",
    "to_the_end": "uncancellable",
    "side_by_side": "concurrency, parallel",
    "hide_own_memory": "make_undumpable",
}
# Beginnings of constants.
CONSTANTS = {"MOST": "MAX", "FEWEST": "MIN", "LEAST": "MIN", "LONGEST": "MAX", "LOOK": "POLL"}
# Files in which a word may stand, and why.
ALLOWED = (
    ("examples/courteous-replies/*", "wish*", "a kind of courtesy that replies have"),
    ("tests/unit/examples/test_gold.py", "wish*", "a kind of courtesy that replies have"),
    ("examples/courteous-replies/gold.py", "MOST", "the digest of this file is part of stored specs"),
    ("examples/courteous-replies/gold.py", "FEWEST", "the digest of this file is part of stored specs"),
    ("lib/quatrain/local/state.py", "zombie*", "psutil's name of a process state"),
)
UNREAD = (
    ".ci/check_words.py",
    "tests/unit/ci/*",
    "CHANGELOG.md",
    "LICENSE",
    "lib/quatrain/v1/*",
    "*/results/*",
    "tests/releases/*/*",
)
"""This table and its test, history, the licence, code generated from the protos, and stored results and fixtures."""

IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def given_up(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each identifier or word of a text that is given up, the entry of the table, and what to use."""
    for name in IDENTIFIER.findall(text):
        parts = [part.lower() for part in PART.findall(name)]
        snake = f"_{'_'.join(parts)}_"
        for word, instead in WORDS.items():
            if "_" in word:
                # The names of tests are sentences.
                found = f"_{word}_" in snake and not name.startswith("test_")
            else:
                found = any(fnmatch(part, word) for part in parts)
            if found:
                yield name, word, instead
        first, _, rest = name.lstrip("_").partition("_")
        if first in CONSTANTS and rest.isupper():
            yield name, first, f"{CONSTANTS[first]}_{rest}"


def problems(name: str, text: str) -> Iterator[str]:
    """Yield a line for each given-up word in a file that may not stand there."""
    allowed = {word for pattern, word, _ in ALLOWED if fnmatch(name, pattern)}
    for number, line in enumerate([name, *text.splitlines()]):
        for found, word, instead in given_up(line):
            if word not in allowed:
                where = f"{name}:{number}" if number else f"{name} (its name)"
                yield f"{where}: {found!r} is given up: {instead}"


def main() -> int:
    """Return 0 when no file has a given-up word."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    found: list[str] = []
    for name in listed.stdout.split("\0"):
        if not name or any(fnmatch(name, pattern) for pattern in UNREAD) or not (ROOT / name).is_file():
            continue
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an archive or a picture
        found += problems(name, text)
    print("\n".join(found) or "words: none that is given up")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
