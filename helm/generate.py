"""Writes values.schema.json and README.md of the chart; `--check` only says whether they are up to date.

README.md is README.in.md with the table of values, made of the comments `# -- TEXT` above the keys of values.yaml.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from helm import schema

CHART = Path(__file__).parent / "quatrain"
MARK = "<!-- values -->"
_KEY = re.compile(r"^( *)([A-Za-z]+):(?: |$)")


@dataclass(frozen=True)
class Described:
    """A key of values.yaml, its default and the text of its comment."""

    path: str
    default: object
    text: str


def described(values: Path) -> list[Described]:
    """Return the keys that have a description, in their order."""
    text = values.read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    found: list[Described] = []
    parents: list[str] = []
    comment = ""
    for line in text.splitlines():
        if line.lstrip().startswith("# -- "):
            comment = line.lstrip().removeprefix("# -- ")
        elif match := _KEY.match(line):
            parents = [*parents[: len(match[1]) // 2], match[2]]
            if comment:
                found.append(Described(".".join(parents), _at(document, parents), comment))
            comment = ""
    return found


def _at(document: Any, path: list[str]) -> Any:
    for key in path:
        document = document[key]
    return document


def table(rows: list[Described]) -> str:
    """Return the table as Markdown. A service's own tree shows what differs from `defaults`."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for row in rows:
        default = json.dumps(row.default, ensure_ascii=False)
        lines.append(f"| `{row.path}` | `{default}` | {row.text} |")
    return "\n".join(lines)


def documents() -> dict[Path, str]:
    """Return the contents of the generated files."""
    frame = (CHART / "README.in.md").read_text(encoding="utf-8")
    return {
        CHART / "values.schema.json": json.dumps(schema.values(), indent=1) + "\n",
        CHART / "README.md": frame.replace(MARK, table(described(CHART / "values.yaml"))),
    }


def main() -> int:
    """Check or write the files, and return 0 when they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(CHART.parent)} {'is not up to date; run helm/generate.py' if check else 'written'}")
        if not check:
            path.write_text(documents()[path], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
