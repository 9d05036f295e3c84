"""docs/glossary.md: its words are unique, and the modules that it names exist."""

import re

from tests.unit.docs.pages import ROOT, text_of

ROOTS = ("lib", "services", "orchestrator")


def entries() -> list[tuple[str, str]]:
    """Word and modules of each row."""
    rows = re.findall(r"^\| (.+?) \| .+ \| (`.+`) \|$", text_of("docs/glossary.md"), re.MULTILINE)
    return [(str(word), str(modules)) for word, modules in rows]


def test_each_word_stands_there_once() -> None:
    words = [part for word, _ in entries() for part in word.split(", ")]

    assert len(words) >= 30
    assert len(words) == len(set(words))


def test_the_modules_exist() -> None:
    for word, modules in entries():
        for name in re.findall(r"`([^`]+)`", modules):
            path = f"quatrain/{name.replace('.', '/')}"
            assert any((ROOT / root / f"{path}{end}").exists() for root in ROOTS for end in (".py", "/__init__.py")), (
                f"{word}: {name}"
            )
