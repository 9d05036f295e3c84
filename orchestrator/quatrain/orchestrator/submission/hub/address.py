"""URIs of the Hub, taken apart: `hf://ORG/NAME[@REVISION]` and `hf://datasets/ORG/NAME[@REVISION]/FILE-or-split`."""

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote

from quatrain.errors import InvalidInput

SCHEME = "hf://"
MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ID = re.compile(rf"{_WORD}/{_WORD}")
# Revisions with a slash are those that the Hub makes itself; others are written with %2F.
_ADDRESS = re.compile(
    r"(?P<org>[^/@]+)/(?P<name>[^/@]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<inside>.*))?"
)


@dataclass(frozen=True)
class HubAddress:
    """A repository of the Hub at a revision (branch, tag or commit), and what is meant of a data set's files."""

    kind: Literal["model", "dataset"]
    repository: str
    revision: str = MAIN
    inside: str = ""

    @property
    def uri(self) -> str:
        """Return the URI, with its revision."""
        folder = "" if self.kind == "model" else "datasets/"
        inside = f"/{self.inside}" if self.inside else ""
        revision = self.revision if self.revision.startswith("refs/") else self.revision.replace("/", "%2F")
        return f"{SCHEME}{folder}{self.repository}@{revision}{inside}"

    @property
    def page(self) -> str:
        """Return the path of the repository's page."""
        return self.repository if self.kind == "model" else f"datasets/{self.repository}"

    @property
    def is_exact(self) -> bool:
        """Return whether the revision is a commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> "HubAddress":
        """Return the same at a commit."""
        return replace(self, revision=commit)


def read_address(uri: str, kind: Literal["model", "dataset"]) -> HubAddress:
    """Return the parts of an `hf://` URI. Raises InvalidInput for what names no repository of this kind."""
    rest = uri.removeprefix(SCHEME).removesuffix("/")
    of_data = rest.startswith("datasets/")
    form = "hf://ORG/NAME[@REVISION]" if kind == "model" else "hf://datasets/ORG/NAME[@REVISION]/FILE-or-split"
    if of_data != (kind == "dataset"):
        what = "a data set" if of_data else "a model"
        raise InvalidInput(f"{uri!r} names {what} of the Hub, but a {kind} is needed here: give {form}")
    match = _ADDRESS.fullmatch(rest.removeprefix("datasets/"))
    if match is None:
        raise InvalidInput(f"{uri!r} names no repository of the Hub: give {form}")
    inside = match["inside"] or ""
    repository = f"{match['org']}/{match['name']}"
    if not is_repository(repository) or any(part in ("", ".", "..") for part in inside.split("/") if inside):
        raise InvalidInput(f"{uri!r} names no repository of the Hub: give {form}")
    if kind == "model" and inside:
        raise InvalidInput(f"{uri!r}: a model is a whole repository: leave out {inside!r}")
    return HubAddress(kind, repository, unquote(match["revision"] or MAIN), inside)


def is_repository(text: str) -> bool:
    """Return whether a text is a repository's id: ORG/NAME."""
    return _ID.fullmatch(text) is not None and "--" not in text and ".." not in text
