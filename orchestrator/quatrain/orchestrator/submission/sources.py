"""Models and data outside, as a spec names them: `s3://BUCKET/KEY`, `hf://ORG/NAME`. Copied, never used in place.

The orchestrator reads with its own rights for whoever submits. Therefore only buckets that the operator opened to jobs
(`sources.buckets`) are read, and the deployment's own, which holds everybody's models, never is.
"""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from quatrain.config import SourcesConfig, StorageConfig
from quatrain.errors import Corrupt, InvalidData, InvalidInput, NotFound, Unavailable
from quatrain.orchestrator.submission.hub import address as hub_address
from quatrain.orchestrator.submission.hub.files import PACKED, choose_data, choose_model
from quatrain.orchestrator.submission.hub.listing import Listing
from quatrain.orchestrator.submission.hub.reader import PAUSES, HubReader
from quatrain.orchestrator.submission.hub.shards import join_shards
from quatrain.storage import ObjectStat
from quatrain.storage.files import write_file
from quatrain.storage.keys import check_key
from quatrain.storage.s3 import S3Address, S3Store
from quatrain.storage.s3_errors import S3Refused
from quatrain.text.model_folder import is_model_file, no_weights

T = TypeVar("T")

SCHEME = "s3://"
OUTSIDE = (SCHEME, hub_address.SCHEME)
"""The schemes of what is read here."""
MAX_FILES = 2000
"""Files of a model, uploaded or copied."""
READERS = 2
"""Copies made at once. The disk that they take is at most this many times the largest model."""


@dataclass(frozen=True)
class _Place:
    """A URI of a spec, taken apart, and the bucket it names."""

    uri: str
    bucket: str
    key: str
    store: S3Store


class Sources:
    """The buckets that specs may name. Raises InvalidInput for settings that cannot work.

    `scratch` is the folder of the temporary copies; a server that is away is tried for `total_wait` seconds, the Hub
    after each of `hub_pauses`. `hub_cache`: what the Hub's files are kept in, where the settings name no folder.
    """

    def __init__(
        self,
        config: SourcesConfig,
        storage: StorageConfig,
        scratch: Path,
        *,
        hub_cache: Path | None = None,
        total_wait: float = 20.0,
        hub_pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._config = config
        self._own = storage.bucket if storage.kind == "s3" else None
        self._stores = {bucket: _open(bucket, config, storage, total_wait) for bucket in config.buckets}
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="sources")
        self._closing = threading.Event()
        self._hub = HubReader(config, hub_cache or scratch / "hub", self._check_open, hub_pauses)

    @property
    def scratch(self) -> Path:
        """Return the folder of temporary copies, which has room for models."""
        return self._scratch

    def close(self) -> None:
        """End the copies under way."""
        self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, uri: str, work: Callable[[str], T]) -> T:
        """Run blocking work on a URI. Reading from outside has threads of its own, so that it holds up no job."""
        threads = self._threads if uri.startswith(OUTSIDE) else None
        return await asyncio.get_running_loop().run_in_executor(threads, work, uri)

    def exact(self, uri: str, kind: Literal["model", "dataset"]) -> str:
        """Return the URI with the commit that its revision is now; others as they are. Raises as `model` does."""
        if not uri.startswith(hub_address.SCHEME):
            return uri
        self._hub.check_allowed(uri)
        address = hub_address.read_address(uri, kind)
        return address.at(self._hub.listing(address).commit).uri

    @contextmanager
    def model(self, uri: str) -> Iterator[Path]:
        """Make a copy of the model folder that a URI names, for as long as the context lasts.

        Raises InvalidInput, InvalidData, NotFound, Corrupt, Unavailable.
        """
        opened = self._hub_model(uri) if uri.startswith(hub_address.SCHEME) else self._bucket_model(uri)
        with opened as folder:
            yield folder

    @contextmanager
    def data(self, uri: str, split: str = "") -> Iterator[Path]:
        """Make a copy of the data file that a URI names, with its extension, for as long as the context lasts.

        `split` is for data sets of the Hub. Raises as `model` does; InvalidData of the caller's reading names the URI
        instead of the copy.
        """
        opened = self._hub_data(uri, split) if uri.startswith(hub_address.SCHEME) else self._bucket_data(uri)
        with opened as path:
            yield path

    @contextmanager
    def _hub_model(self, uri: str) -> Iterator[Path]:
        self._hub.check_allowed(uri)
        address, most = hub_address.read_address(uri, "model"), self._config.max_model_bytes
        with (
            self._hub.fetch(address, lambda found: choose_model(uri, found.files), most, "max_model_bytes") as fetched,
            tempfile.TemporaryDirectory(prefix="source-", dir=self._scratch) as temporary,
        ):
            folder = Path(temporary)
            for name, path in fetched.paths.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).symlink_to(path)
            with _naming(uri, folder):
                yield folder

    @contextmanager
    def _hub_data(self, uri: str, split: str) -> Iterator[Path]:
        self._hub.check_allowed(uri)
        address, most = hub_address.read_address(uri, "dataset"), self._config.max_data_bytes

        def choose(found: Listing) -> list[str]:
            return choose_data(uri, found.files, address.inside, split)

        with (
            self._hub.fetch(address, choose, most, "max_data_bytes") as fetched,
            tempfile.TemporaryDirectory(prefix="source-", dir=self._scratch) as temporary,
        ):
            paths = [path for _, path in sorted(fetched.paths.items())]
            first = PurePosixPath(min(fetched.paths))
            copy = Path(temporary) / f"data{''.join(first.suffixes[-2:]) if first.suffix in PACKED else first.suffix}"
            if len(paths) == 1:
                copy.symlink_to(paths[0])
            else:
                join_shards(uri, paths, copy)
            with _naming(uri, copy):
                yield copy

    @contextmanager
    def _bucket_model(self, uri: str) -> Iterator[Path]:
        """Make a checked copy of the model folder under `s3://BUCKET/PREFIX`, for as long as the context lasts.

        It has the files that a client would upload of the same folder, so that its digest is the same.
        Raises InvalidInput, InvalidData, NotFound, Corrupt, Unavailable.
        """
        place = self._place(uri)
        with tempfile.TemporaryDirectory(prefix="source-", dir=self._scratch) as temporary:
            folder = Path(temporary)
            with _reading(place):
                found = place.store.list(f"{place.key}/", limit=MAX_FILES + 1)
            files = choose_files(uri, f"{place.key}/", found)
            self._check_size(uri, sum(files.values()), "max_model_bytes")
            with _reading(place):
                for name, size in files.items():
                    self._copy(place, f"{place.key}/{name}", size, folder / name)
            with _naming(uri, folder):
                yield folder

    @contextmanager
    def _bucket_data(self, uri: str) -> Iterator[Path]:
        """Make a copy of the data file at `s3://BUCKET/KEY` with its extension, for as long as the context lasts.

        Raises as `model` does; InvalidData of the caller's reading names the URI instead of the copy.
        """
        place = self._place(uri)
        with tempfile.TemporaryDirectory(prefix="source-", dir=self._scratch) as temporary:
            path = Path(temporary) / f"data{PurePosixPath(place.key).suffix[:16]}"
            with _reading(place):
                stat = place.store.stat(place.key)
                if stat is None:
                    # The error of a read says more than a HEAD can: no bucket, or no object.
                    place.store.get_range(place.key, 0, 1)
                    raise NotFound(uri)
                self._check_size(uri, stat.size, "max_data_bytes")
                self._copy(place, place.key, stat.size, path)
            with _naming(uri, path):
                yield path

    def _place(self, uri: str) -> _Place:
        bucket, _, key = uri.removeprefix(SCHEME).removesuffix("/").partition("/")
        if not bucket or not key:
            raise InvalidInput(f"{uri!r} names no object: give s3://BUCKET/KEY")
        if bucket == self._own:
            raise InvalidInput(f"bucket {bucket!r} holds this deployment's own data and is never open to jobs")
        if bucket not in self._stores:
            raise InvalidInput(
                f"bucket {bucket!r} is not open to jobs: the operator lists readable buckets in sources.buckets"
            )
        return _Place(uri, bucket, check_key(key), self._stores[bucket])

    def _check_size(self, uri: str, size: int, setting: str) -> None:
        most = getattr(self._config, setting)
        if size > most:
            raise InvalidData(f"{uri} has {size} bytes; at most {most} are read (sources.{setting})")

    def _copy(self, place: _Place, key: str, size: int, path: Path) -> None:
        chunks = exactly(place.store.stream(key), size, f"{SCHEME}{place.bucket}/{key}")
        write_file(path, self._until_closed(chunks))

    def _until_closed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check_open()
            yield chunk

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Unavailable("the server is shutting down; send the request again")


def unreadable(uri: str, ways: str) -> InvalidInput:
    """Return the error for a URI that is none of `ways`."""
    of_data = uri.removeprefix("datasets/")
    if hub_address.is_repository(of_data):
        return InvalidInput(f"{uri!r} looks like a name of the Hub: write hf://{uri}; or give {ways}")
    return InvalidInput(f"{uri!r} cannot be read here: give {ways}; clients upload paths by themselves")


def choose_files(uri: str, prefix: str, found: Sequence[ObjectStat]) -> dict[str, int]:
    """Return the model's files among the objects under `prefix`, with their sizes in bytes.

    Raises NotFound (nothing there), InvalidData (too many files, no safetensors), InvalidInput (names that are no
    plain paths).
    """
    if not found:
        raise NotFound(f"{uri}: nothing lies under it; name the folder that holds config.json")
    if len(found) > MAX_FILES:
        raise InvalidData(f"{uri} has more than {MAX_FILES} files: name one model's folder")
    names: dict[str, int] = {}
    for stat in found:
        if not stat.key.endswith("/"):  # Consoles make such empty objects to show a folder.
            names[check_key(stat.key).removeprefix(prefix)] = stat.size
    if not any(name.endswith(".safetensors") for name in names):
        raise no_weights(uri, names)
    files = {name: size for name, size in names.items() if is_model_file(name)}
    check_apart([PurePosixPath(name) for name in files])
    return files


def check_apart(paths: Sequence[PurePosixPath]) -> None:
    """Raise InvalidInput when two files of a model have one path, or one lies in another."""
    taken = set(paths)
    if len(taken) < len(paths):
        raise InvalidInput("two files of the model have the same path")
    for path in paths:
        for folder in path.parents:
            if folder in taken:
                raise InvalidInput(f"{str(folder)!r} is a file and a folder of the model")


def exactly(chunks: Iterable[bytes], size: int, uri: str) -> Iterator[bytes]:
    """Yield the chunks. Raises Corrupt unless they have `size` bytes together: no more is read than was allowed."""
    taken = 0
    for chunk in chunks:
        taken += len(chunk)
        if taken > size:
            break
        yield chunk
    if taken != size:
        raise Corrupt(f"{uri} was replaced while it was read; send the request again")


def _open(bucket: str, config: SourcesConfig, storage: StorageConfig, total_wait: float) -> S3Store:
    """Open a bucket where `sources` says, else beside the deployment's own, with a key of its own if there is one."""
    if not config.endpoint and storage.kind != "s3":
        raise InvalidInput("sources.buckets is set, but sources.endpoint (host:port) names no S3 server")
    place = config if config.endpoint else storage
    key = config if config.endpoint or config.access_key else storage
    address = S3Address(place.endpoint, bucket, key.access_key, key.secret_key, place.secure, place.region, total_wait)
    try:
        return S3Store(address)
    except InvalidInput as error:
        raise InvalidInput(f"sources.endpoint {place.endpoint!r} is no host:port") from error


@contextmanager
def _reading(place: _Place) -> Iterator[None]:
    """Turn the server's errors into ones about the URI in the spec, not about the deployment's own store."""
    try:
        yield
    except S3Refused as error:
        why = "there is no such bucket" if error.code == "NoSuchBucket" else f"access refused ({error.code})"
        hint = f"the operator can check bucket {place.bucket!r} and the key in sources.access_key"
        raise InvalidData(f"{place.uri}: {why}; {hint}") from error
    except NotFound as error:
        raise NotFound(f"{place.uri}: there is no such object") from error
    except Unavailable as error:
        raise Unavailable(f"{place.uri} cannot be read now: {error.message}") from error


@contextmanager
def _naming(uri: str, copy: Path) -> Iterator[None]:
    """Name the URI instead of the copy in errors about the data."""
    try:
        yield
    except InvalidData as error:
        raise InvalidData(error.message.replace(str(copy), uri)) from error
