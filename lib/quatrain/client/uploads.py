"""Uploads by content: a file that the server has is not sent again, and one that broke off goes on where it stopped."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from quatrain.backoff import Backoff
from quatrain.client.connection import CHECK_SECONDS, Connection
from quatrain.client.resources import Artifact, NamedModel
from quatrain.errors import Corrupt, DeadlineExpired, InvalidData, InvalidInput, Unavailable
from quatrain.refs import ModelRef
from quatrain.text import Tokenizer
from quatrain.text.adapter_folder import is_adapter, read_adapter
from quatrain.text.model_folder import check_model_folder, is_model_file
from quatrain.v1 import artifact_pb2

Request = artifact_pb2.UploadRequest

CHUNK_BYTES = 2**20
# An upload gives up after so many failed tries in a row that sent no new byte; the pauses after them.
TRIES = 5
BACKOFF = Backoff(first=0.4, longest=5.0)
# Bytes a second of the slowest connection on which an upload still ends in time.
SLOWEST = 128 * 1024


async def upload_file(connection: Connection, path: Path) -> Artifact:
    """Upload a file unless it is there. Its uri is `sha256:` + its digest.

    Raises InvalidData when it cannot be read, Corrupt when it changes meanwhile, Unavailable when the connection stays
    broken.
    """
    try:
        digest, size = await asyncio.to_thread(_digest, path)
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
    failures, reached = 0, -1
    while True:
        try:
            state = await connection.call(connection.artifacts.GetUpload, artifact_pb2.GetUploadRequest(sha256=digest))
            if state.complete:
                return Artifact(f"sha256:{digest}", digest, size)
            failures = failures if state.received <= reached else 0
            reached = max(reached, state.received)
            await _send(connection, path, Request(sha256=digest, size=size), state.received)
            return Artifact(f"sha256:{digest}", digest, size)
        except (Unavailable, DeadlineExpired, InvalidInput):
            # InvalidInput: bytes of the broken stream arrived after the server had said how far it was. Ask again.
            failures += 1
            if failures == TRIES or reached < 0:
                raise
            await asyncio.sleep(BACKOFF.pause(failures))


async def upload_model(connection: Connection, folder: Path, name: str) -> NamedModel:
    """Upload the files of a model folder and make them a model.

    The folder is checked here first, so that a wrong one costs no upload. Raises InvalidData.
    """
    await asyncio.to_thread(check_folder, folder)
    request = artifact_pb2.ImportModelRequest(name=name)
    for path in model_files(folder):
        artifact = await upload_file(connection, folder / path)
        request.files.add(path=path, sha256=artifact.sha256)
    answer = await connection.call(connection.artifacts.ImportModel, request, timeout=CHECK_SECONDS)
    return NamedModel(name, answer.number, ModelRef.from_proto(answer.model))


async def import_from(connection: Connection, uri: str, name: str) -> NamedModel:
    """Let the server read a model folder outside (`s3://BUCKET/PREFIX`, `hf://ORG/NAME`) and make it a model.

    Raises InvalidData, NotFound.
    """
    request = artifact_pb2.ImportModelRequest(uri=uri, name=name)
    answer = await connection.call(connection.artifacts.ImportModel, request, timeout=CHECK_SECONDS)
    return NamedModel(name, answer.number, ModelRef.from_proto(answer.model))


def check_folder(folder: Path) -> None:
    """Raise InvalidData unless the folder is a LoRA adapter or a model whose tokenizer has an end of sequence."""
    if is_adapter(folder):
        read_adapter(folder)
        return
    check_model_folder(folder)
    Tokenizer.load(folder)


def model_files(folder: Path) -> list[str]:
    """Return the paths of the files that belong to a model folder, sorted."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if is_model_file(name)]


async def _send(connection: Connection, path: Path, head: Request, start: int) -> None:
    chunks = _chunks(path, head, start)
    timeout = 60.0 + head.size / SLOWEST
    answer = await connection.call(connection.artifacts.Upload, chunks, timeout=timeout)
    if answer.object.sha256 != head.sha256:
        raise Corrupt(f"{path} was stored as {answer.object.sha256}, not as {head.sha256}; upload it again")


async def _chunks(path: Path, head: Request, start: int) -> AsyncIterator[Request]:
    message, offset = head, start
    with await asyncio.to_thread(path.open, "rb") as file:
        await asyncio.to_thread(file.seek, start)
        while True:
            data = await asyncio.to_thread(file.read, CHUNK_BYTES)
            # An empty file, and one that has arrived whole but unchecked, is one message without data.
            if not data and message is not head:
                return
            message.offset, message.data = offset, data
            yield message
            offset += len(data)
            message = Request()


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()
