"""Calls to a learner, and what they name put into a store."""

import asyncio
import string
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from tests.unit.learner.stages import TOTAL_STEPS, ppo_settings, sealed
from tests.unit.models.tiny_models import VOCABULARY, save_tiny_model
from tests.unit.text.folders import symbol_tokenizer, write_folder

from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import QuatrainError
from quatrain.rpc.errors import from_rpc_error
from quatrain.storage import ObjectStore
from quatrain.storage.folders import upload_model_folder
from quatrain.v1 import common_pb2, learner_pb2

SERVICE = "quatrain.v1.LearnerService"


def owner(job: str = "job-1", epoch: int = 1, attempt: int = 1) -> common_pb2.OwnerToken:
    return common_pb2.OwnerToken(job=job, epoch=epoch, attempt=attempt)


def put_model(store: ObjectStore, folder: Path) -> common_pb2.ModelRef:
    save_tiny_model(folder)
    write_folder(folder, symbol_tokenizer(string.printable[:VOCABULARY]), {"eos_token": "9"})
    stored = upload_model_folder(store, folder)
    return common_pb2.ModelRef(uri=f"sha256:{stored.digest}", digest=stored.digest)


def put_batch(store: ObjectStore, step: int) -> common_pb2.ObjectRef:
    data = sealed(step)
    key = f"jobs/job-1/ppo/batches/{step}.parquet"
    store.put_if_absent(key, data)
    return common_pb2.ObjectRef(key=key, sha256=sha256_hex(data), size=len(data))


def open_request(model: common_pb2.ModelRef, **changes: Any) -> learner_pb2.OpenRequest:
    fields: dict[str, Any] = {
        "token": owner(),
        "stage": learner_pb2.STAGE_PPO,
        "config_json": canonical_json(ppo_settings()).decode(),
        "model": model,
        "total_steps": TOTAL_STEPS,
        "seed": 3,
        "temperature": 0.7,
    }
    return learner_pb2.OpenRequest(**{**fields, **changes})


async def refusal(call: Awaitable[Any]) -> QuatrainError:
    """The error of a call, whether it came bare (unary) or mapped by `result_of` (streams)."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error, service="learner", target="here")
    except QuatrainError as error:
        return error
    pytest.fail("the call was not refused")


def run(act: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await act()

    asyncio.run(bounded())
