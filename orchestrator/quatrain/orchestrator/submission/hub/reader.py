"""Reads from the Hub: a revision is resolved to a commit first, and everything is fetched at this commit."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.hf_api import DatasetInfo, ModelInfo

from quatrain.config import SourcesConfig
from quatrain.errors import Corrupt, InvalidData, InvalidInput, Unavailable
from quatrain.orchestrator.submission.hub.address import HubAddress
from quatrain.orchestrator.submission.hub.cache import HubCache
from quatrain.orchestrator.submission.hub.http import CONNECT_SECONDS, SILENCE_SECONDS, asking, prepare_client
from quatrain.orchestrator.submission.hub.listing import Listing, read_listing
from quatrain.orchestrator.submission.hub.refusals import RAISED, refusal

T = TypeVar("T")
log = structlog.get_logger(__name__)

PAUSES = (1.0, 3.0, 9.0)
"""Seconds before a failed request is sent again."""


@dataclass(frozen=True)
class Fetched:
    """Files of a repository on this machine, by their path in it."""

    address: HubAddress
    paths: dict[str, Path]


class HubReader:
    """A reader of one Hub. `check_open` raises once the process closes."""

    def __init__(
        self, config: SourcesConfig, root: Path, check_open: Callable[[], None], pauses: Sequence[float] = PAUSES
    ) -> None:
        self._config = config
        self._cache = HubCache(config.hub_cache_dir or root, config.hub_cache_bytes)
        self._check_open = check_open
        self._pauses = pauses
        self._endpoint = config.hub_endpoint or constants.ENDPOINT
        # False: no other account's token, from the environment or a home folder, is ever sent.
        self._token: str | bool = config.hub_token or False
        self._api = HfApi(endpoint=self._endpoint, token=self._token)
        if config.hub:
            prepare_client()

    def check_allowed(self, uri: str) -> None:
        """Raise InvalidInput where the operator has not opened the Hub to jobs."""
        if not self._config.hub:
            raise InvalidInput(
                f"{uri!r}: this server reads nothing from the Hub: let the operator set sources.hub, or download it "
                "and give the path"
            )

    def listing(self, address: HubAddress) -> Listing:
        """Return what the repository holds. Raises InvalidData, NotFound, Unavailable."""
        if self._config.hub_offline:
            return self._cache.listing(address)
        with self._bounded(address):
            info = self._tried(
                address,
                lambda: self._api.repo_info(
                    address.repository,
                    repo_type=address.kind,
                    revision=address.revision,
                    timeout=SILENCE_SECONDS,
                    files_metadata=True,
                ),
            )
            assert isinstance(info, ModelInfo | DatasetInfo), "what was asked for"
            return read_listing(info)

    @contextmanager
    def fetch(
        self, address: HubAddress, choose: Callable[[Listing], Sequence[str]], max_bytes: int, setting: str
    ) -> Iterator[Fetched]:
        """Fetch the chosen files at the revision's commit; they stay for as long as the context lasts.

        Raises InvalidData (too large by `setting`, refused), NotFound, Corrupt, Unavailable.
        """
        listing = self.listing(address)
        exact = address.at(listing.commit)
        names = choose(listing)
        size = sum(listing.files[name].size for name in names)
        if size > max_bytes:
            raise InvalidData(
                f"{address.uri} has {size} bytes; at most {max_bytes} are read: name a smaller one, or let the "
                f"operator raise sources.{setting}"
            )
        with self._cache.using(listing.commit):
            self._check_disk(address, size)
            with self._bounded(address):
                paths = {name: self._fetch(exact, name, listing) for name in names}
            if not self._config.hub_offline:
                self._cache.remember(address, listing.commit)
            yield Fetched(exact, paths)

    def _fetch(self, address: HubAddress, name: str, listing: Listing) -> Path:
        def download(*, again: bool = False) -> Path:
            return Path(
                hf_hub_download(
                    address.repository,
                    name,
                    repo_type=address.kind,
                    revision=address.revision,
                    cache_dir=self._cache.root,
                    endpoint=self._endpoint,
                    token=self._token,
                    etag_timeout=CONNECT_SECONDS,
                    local_files_only=self._config.hub_offline,
                    force_download=again,
                )
            )

        path = self._tried(address, download)
        try:
            listing.files[name].check(path, address.uri, name)
        except Corrupt:
            # What lies in the cache may be damaged; what comes again may not.
            if self._config.hub_offline:
                raise
            path = self._tried(address, lambda: download(again=True))
            listing.files[name].check(path, address.uri, name)
        return path

    def _check_disk(self, address: HubAddress, size: int) -> None:
        self._cache.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._cache.root).free
        if size > free and not self._config.hub_offline:
            raise Unavailable(
                f"{address.uri} has {size} bytes and the disk of the Hub's cache {free} free: let the operator free "
                "space or set sources.hub_cache_dir"
            )

    @contextmanager
    def _bounded(self, address: HubAddress) -> Iterator[None]:
        """Bound the time of all that is received within."""
        end = time.monotonic() + self._config.hub_seconds

        def may_go_on() -> None:
            self._check_open()
            if time.monotonic() > end:
                raise Unavailable(
                    f"{address.uri} took longer than {self._config.hub_seconds:g} s: submit again, which goes on with "
                    "what has arrived, or let the operator raise sources.hub_seconds"
                )

        with asking(may_go_on):
            yield

    def _tried(self, address: HubAddress, work: Callable[[], T]) -> T:
        """Return what the work returns, tried again where the Hub may answer later."""
        for pause in (*self._pauses, None):
            try:
                return work()
            except RAISED as error:
                told = refusal(address, error, self._endpoint)
                if not isinstance(told, Unavailable) or pause is None:
                    raise told from None
                log.warning("hub.retry", uri=address.uri, pause=pause, reason=told.message)
                time.sleep(pause)
                self._check_open()
        raise AssertionError("the last try returns or raises")
