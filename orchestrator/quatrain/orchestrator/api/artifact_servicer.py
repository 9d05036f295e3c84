"""ArtifactService: uploads, model imports and downloads."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import grpc
from typing_extensions import override

from quatrain.errors import InvalidData, InvalidInput, NotFound
from quatrain.faults import fault_point
from quatrain.orchestrator.api.downloads import Chunk, stream_folder, stream_object
from quatrain.orchestrator.api.uploads import Uploads, data_key
from quatrain.orchestrator.submission import model_names
from quatrain.orchestrator.submission.models import check_model_or_adapter, outside_model
from quatrain.orchestrator.submission.sources import MAX_FILES, OUTSIDE, Sources, check_apart, unreadable
from quatrain.refs import ModelRef
from quatrain.rpc.server.access import caller
from quatrain.storage import ObjectStore
from quatrain.storage.folders import read_file, upload_model_folder
from quatrain.v1 import artifact_pb2, artifact_pb2_grpc, common_pb2

Context = grpc.aio.ServicerContext[Any, Any]
MAX_PATH_BYTES = 200


@dataclass
class ArtifactServicer(artifact_pb2_grpc.ArtifactServiceServicer):
    """Uploads, imports and downloads by content: the same bytes twice are one object."""

    store: ObjectStore
    uploads: Uploads
    sources: Sources
    scratch: Path

    @override
    async def GetUpload(
        self, request: artifact_pb2.GetUploadRequest, context: Context
    ) -> artifact_pb2.GetUploadResponse:
        complete, received = await self.uploads.received(request.sha256)
        return artifact_pb2.GetUploadResponse(complete=complete, received=received)

    @override
    async def Upload(
        self, request_iterator: AsyncIterator[artifact_pb2.UploadRequest], context: Context
    ) -> artifact_pb2.UploadResponse:
        messages = aiter(request_iterator)
        first = await anext(messages, None)
        if first is None:
            raise InvalidInput("an upload without a message: send sha256 and size first")

        async def chunks() -> AsyncIterator[tuple[int, bytes]]:
            yield first.offset, first.data
            async for message in messages:
                yield message.offset, message.data

        size = await self.uploads.take(first.sha256, first.size, chunks())
        complete, received = await self.uploads.received(first.sha256)
        if not complete:
            raise InvalidInput(f"the upload ended after {received} of {size} bytes: go on from there")
        return artifact_pb2.UploadResponse(
            object=common_pb2.ObjectRef(key=data_key(first.sha256), sha256=first.sha256, size=size)
        )

    @override
    async def ImportModel(
        self, request: artifact_pb2.ImportModelRequest, context: Context
    ) -> artifact_pb2.ImportModelResponse:
        if request.uri and request.files:
            raise InvalidInput("a model is imported from files or from a uri, not from both")
        if request.uri:
            model = await self.sources.in_thread(request.uri, self._import_from)
        else:
            model = await asyncio.to_thread(self._import, list(request.files))
        number = 0
        fault_point("import.before_name")
        if request.name:
            entry = await asyncio.to_thread(model_names.register, self.store, request.name, model.digest, caller())
            number = entry.number
        fault_point("import.after_name")
        return artifact_pb2.ImportModelResponse(model=model.to_proto(), number=number)

    @override
    async def ListModels(
        self, request: artifact_pb2.ListModelsRequest, context: Context
    ) -> artifact_pb2.ListModelsResponse:
        entries = await asyncio.to_thread(model_names.list_models, self.store)
        return artifact_pb2.ListModelsResponse(
            models=[
                artifact_pb2.NamedModel(
                    name=entry.name,
                    number=entry.number,
                    model=ModelRef.by_digest(entry.digest).to_proto(),
                )
                for entry in entries
            ]
        )

    @override
    async def Download(
        self, request: artifact_pb2.DownloadRequest, context: Context
    ) -> AsyncIterator[artifact_pb2.DownloadResponse]:
        uri = request.uri
        if uri.startswith("data:"):
            digest = uri.removeprefix("data:")
            stat = await asyncio.to_thread(self.store.stat, data_key(digest))
            if stat is None:
                raise NotFound(f"no file with digest {digest} was uploaded")
            first = Chunk("", min(max(0, request.received.get("", 0)), stat.size), b"", stat.size, digest)
            chunks = stream_object(self.store, data_key(digest), first)
        else:
            if uri.startswith("models://"):
                digest = await asyncio.to_thread(model_names.resolve_name, self.store, uri)
            else:
                digest = uri.removeprefix("sha256:")
            chunks = stream_folder(self.store, ModelRef.by_digest(digest), request.received)
        async for chunk in chunks:
            yield artifact_pb2.DownloadResponse(
                path=chunk.path, offset=chunk.offset, data=chunk.data, size=chunk.size, sha256=chunk.sha256
            )

    def _import_from(self, uri: str) -> ModelRef:
        if not uri.startswith(OUTSIDE):
            raise unreadable(uri, "s3://BUCKET/PREFIX or hf://ORG/NAME")
        with outside_model(self.sources, uri) as (_, root):
            return upload_model_folder(self.store, root)

    def _import(self, files: list[artifact_pb2.ModelFile]) -> ModelRef:
        """Put the uploaded files together, open them as a model, and store the folder under its digest."""
        if not files or len(files) > MAX_FILES:
            raise InvalidInput(f"a model of {len(files)} files: 1 to {MAX_FILES} are taken")
        paths = [_safe_path(file.path) for file in files]
        check_apart(paths)
        with tempfile.TemporaryDirectory(prefix="import-", dir=self.scratch) as temporary:
            root = Path(temporary)
            for file, path in zip(files, paths, strict=True):
                target = root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    read_file(self.store, data_key(file.sha256), file.sha256, target)
                except NotFound as error:
                    raise InvalidData(f"file {file.path!r} was not uploaded: no data with its digest") from error
            check_model_or_adapter(root)
            return upload_model_folder(self.store, root)


def _safe_path(path: str) -> PurePosixPath:
    parts = PurePosixPath(path)
    plain = parts.parts and not parts.is_absolute() and ".." not in parts.parts
    hostile = any(ord(letter) < 32 or letter in "\\\x7f" for letter in path)
    if not plain or hostile or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        raise InvalidInput(
            f"file path {path[:200]!r}: use a relative path of at most {MAX_PATH_BYTES} bytes, without '..', "
            "backslashes and control characters"
        )
    return parts
