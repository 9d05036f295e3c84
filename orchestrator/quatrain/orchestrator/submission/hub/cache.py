"""The Hub client's cache on this machine: what it knows without the Hub, and how it is kept under its size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.file_download import repo_folder_name

from quatrain.errors import NotFound
from quatrain.orchestrator.submission.hub.address import HubAddress
from quatrain.orchestrator.submission.hub.listing import HubFile, Listing


class HubCache:
    """A cache folder. Commits in use are never removed, others go, oldest first, above `max_bytes`."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._used: list[str] = []

    def remember(self, address: HubAddress, commit: str) -> None:
        """Keep the commit of a branch or tag for when the Hub is not asked, where the client keeps it."""
        if not address.is_exact:
            path = self._folder(address) / "refs" / address.revision
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit)

    def listing(self, address: HubAddress) -> Listing:
        """Return what the cache has of a repository. Raises NotFound."""
        folder = self._folder(address)
        ref = folder / "refs" / address.revision
        commit = address.revision if address.is_exact or not ref.is_file() else ref.read_text().strip()
        snapshot = folder / "snapshots" / commit
        if not snapshot.is_dir():
            raise NotFound(
                f"{address.uri} is not in the cache, and the Hub is not asked (sources.hub_offline): name what the "
                f"cache has, or let the operator turn that off"
            )
        files = sorted(path for path in snapshot.rglob("*") if path.is_file())
        return Listing(commit, {path.relative_to(snapshot).as_posix(): HubFile(path.stat().st_size) for path in files})

    @contextmanager
    def using(self, commit: str) -> Iterator[None]:
        """Keep a commit for as long as the context lasts, and the cache under its size afterwards."""
        with self._lock:
            self._used.append(commit)
        try:
            yield
        finally:
            with self._lock:
                self._used.remove(commit)
                self._evict()

    def _evict(self) -> None:
        try:
            found = scan_cache_dir(self.root)
        except CacheNotFound:
            return
        total = found.size_on_disk
        revisions = sorted((each for repo in found.repos for each in repo.revisions), key=lambda r: r.last_modified)
        for revision in revisions:
            if total <= self._max_bytes:
                return
            if revision.commit_hash not in self._used:
                strategy = found.delete_revisions(revision.commit_hash)
                total -= strategy.expected_freed_size
                strategy.execute()

    def _folder(self, address: HubAddress) -> Path:
        return self.root / repo_folder_name(repo_id=address.repository, repo_type=address.kind)
