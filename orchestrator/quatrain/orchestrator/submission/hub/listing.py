"""What a repository of the Hub holds at a commit: its files with their sizes and digests."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

from quatrain.errors import Corrupt
from quatrain.storage.files import file_sha256

_PIECE = 2**20


@dataclass(frozen=True)
class HubFile:
    """A file: its size in bytes and its digest as the Hub states it, a sha256 or that of a git blob; empty: unknown."""

    size: int
    sha256: str = ""
    git_blob: str = ""

    def check(self, path: Path, uri: str, name: str) -> None:
        """Raise Corrupt unless the file at `path` is this one."""
        size = path.stat().st_size
        wrong = size != self.size
        wrong |= bool(self.sha256) and file_sha256(path) != self.sha256
        wrong |= bool(self.git_blob) and _blob_digest(path, size) != self.git_blob
        if wrong:
            raise Corrupt(
                f"{uri}: {name} is not the file that the Hub lists ({size} bytes, listed {self.size}): it changed or "
                "was damaged on the way; submit again"
            )


@dataclass(frozen=True)
class Listing:
    """The files of a repository by path, at a commit."""

    commit: str
    files: Mapping[str, HubFile]


def read_listing(info: ModelInfo | DatasetInfo) -> Listing:
    """Return the listing of what the client was told. Raises Corrupt when it names no commit."""
    if not info.sha:
        raise Corrupt(f"the Hub names no commit of {info.id}")
    return Listing(info.sha, {each.rfilename: _file(each) for each in info.siblings or []})


def _file(sibling: RepoSibling) -> HubFile:
    if sibling.lfs is not None:
        return HubFile(sibling.size or 0, sha256=sibling.lfs.sha256)
    return HubFile(sibling.size or 0, git_blob=sibling.blob_id or "")


def _blob_digest(path: Path, size: int) -> str:
    """Return the name that git gives to a file of these bytes."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
