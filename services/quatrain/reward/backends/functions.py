"""Reward functions by TRL's convention, each in a process of its own that stays warm between calls."""

import asyncio
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quatrain.code_folder import is_folder, unpack
from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import (
    InvalidData,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionRefused,
    RewardFunctionError,
    Unavailable,
)
from quatrain.jobspec.reward_section import FunctionSource
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.backends.process import CallFailed, FunctionProcess
from quatrain.reward.backends.replies import Returned
from quatrain.reward.backends.sandbox import CodeLimits, Sandbox, SandboxFactory, make_undumpable, safe_name
from quatrain.reward.runner.requests import CallRequest
from quatrain.reward.samples import Batch, Sample
from quatrain.storage import ObjectStore
from quatrain.storage.folders import read_object
from quatrain.telemetry.logging import get_logger

log = get_logger("reward.function")

BLAME_SECONDS = 5.0
"""Time to find the failing sample after a failed call, by calling the function on one sample after the other."""

READY_MADE = "quatrain.rewards"
"""The functions that come with Quatrain: they only compute, and are open to every job."""
PROBE = b"def nothing(**columns): return []"
NOT_ENFORCED = {
    "user": "its files and processes belong to the service's user",
    "files": "this kernel has no Landlock: it reads every file that the service's user may read",
    "calls": "this machine has no filter of system calls: it may start processes and open sockets",
}

Key = tuple[str, str | None]


@dataclass
class _Slot:
    """One function: its process, and the lock that admits one call at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    process: FunctionProcess | None = None
    calls: int = 0


@dataclass(frozen=True)
class FunctionSettings:
    """Settings of the operator. `kept` processes stay warm; an import may take `load_limit` seconds at least.

    Only functions installed in `packages` are called; if it is empty, those of all packages but the standard library.
    """

    allow_code: bool = False
    queue_size: int = 8
    kept: int = 4
    load_limit: float = 30.0
    code_limits: CodeLimits = field(default_factory=CodeLimits)
    packages: tuple[str, ...] = ()


class FunctionBackend:
    """A backend with one warm process for each of the most recently used functions."""

    def __init__(self, store: ObjectStore, settings: FunctionSettings, sandboxes: SandboxFactory | None = None) -> None:
        self._store = store
        self._settings = settings
        self._sandboxes = sandboxes or SandboxFactory(settings.code_limits)
        self._slots: OrderedDict[Key, _Slot] = OrderedDict()
        self._closed = False

    async def check_sandbox(self) -> None:
        """Start a sandbox where uploaded code is allowed, and log which restrictions this machine cannot enforce.

        Raises InvalidInput when uploaded code must not run here.
        """
        if not self._settings.allow_code:
            return
        make_undumpable()
        sandbox = await asyncio.to_thread(self._sandboxes.create, {"probe.py": PROBE}, alone=True)
        try:
            process = await FunctionProcess.start("probe.py:nothing", sandbox, self._settings.load_limit)
        except CallFailed as error:
            raise InvalidInput(f"reward.allow_code is set, but uploaded code {error.message}") from error
        await process.close()
        missing = [text for name, text in NOT_ENFORCED.items() if not process.enforced.get(name)]
        say = log.warning if set(missing) - {NOT_ENFORCED["user"]} else log.info
        say("uploaded reward functions are confined", enforced=process.enforced, except_that="; ".join(missing) or "-")

    async def score(self, source: FunctionSource, batch: Batch) -> SourceScores:
        """Score the batch with one call. Raises RewardFunctionError, PermissionRefused, NotFound, Overloaded."""
        slot = self._slot(source)
        slot.calls += 1
        try:
            async with slot.lock:
                try:
                    reply = await self._call(slot, source, batch, batch.samples, batch.timeout)
                except CallFailed as error:
                    raise await self._describe_failure(slot, source, batch, error) from error
                assert slot.process is not None, "the process answered"
                return _scores(source, reply, source.code_digest or slot.process.code_digest)
        finally:
            slot.calls -= 1
            await self._evict()

    async def close(self) -> None:
        """End all processes; running calls fail."""
        self._closed = True
        slots = list(self._slots.values())
        self._slots.clear()
        for slot in slots:
            if slot.process is not None:
                await slot.process.close()

    @property
    def warm(self) -> list[str]:
        """Return the paths of the functions whose processes run, the least recently used first."""
        return [key[0] for key, slot in self._slots.items() if slot.process is not None]

    def _slot(self, source: FunctionSource) -> _Slot:
        slot = self._slots.setdefault((source.path, source.code_digest), _Slot())
        if slot.calls > self._settings.queue_size:
            raise Overloaded(f"{slot.calls} calls already wait for reward function {source.path!r}; try again later")
        self._slots.move_to_end((source.path, source.code_digest))
        return slot

    async def _evict(self) -> None:
        """End the least recently used processes beyond the number kept; one with calls is never ended."""
        idle = [key for key, slot in self._slots.items() if slot.calls == 0]
        for key in idle[: max(0, len(self._slots) - self._settings.kept)]:
            slot = self._slots.pop(key)
            if slot.process is not None:
                await slot.process.close()

    async def _call(
        self, slot: _Slot, source: FunctionSource, batch: Batch, samples: Sequence[Sample], timeout: float
    ) -> Returned:
        if self._closed:
            raise Unavailable("the reward service is stopping")
        if slot.process is None:
            sandbox = await self._sandbox(source)
            load_limit = max(self._settings.load_limit, batch.timeout)
            slot.process = await FunctionProcess.start(source.path, sandbox, load_limit)
        try:
            return await slot.process.call(
                CallRequest(_columns(samples), batch.trainer_state, timeout, source.args), len(samples)
            )
        finally:
            if not slot.process.alive:
                ended, slot.process = slot.process, None
                await ended.close()

    async def _sandbox(self, source: FunctionSource) -> Sandbox | None:
        """Return the sandbox of uploaded code, None for `module:function`, which the operator has installed."""
        if not source.code_digest:
            self._check_package(source.path)
            return None
        if not self._settings.allow_code:
            raise PermissionRefused(
                f"reward function {source.path!r} is uploaded code, which this deployment does not run; "
                "name an installed module:function, or let the operator set reward.allow_code"
            )
        return await asyncio.to_thread(self._fetch_code, source.path, source.code_digest)

    def _check_package(self, path: str) -> None:
        """Raise PermissionRefused unless jobs may call functions of this package: not every one is harmless."""
        package = path.partition(":")[0].partition(".")[0]
        allowed = self._settings.packages
        if path.partition(":")[0] == READY_MADE:
            return
        if package in sys.stdlib_module_names or (allowed and package not in allowed):
            raise PermissionRefused(
                f"reward function {path!r}: functions of {package!r} are not open to jobs; the operator lists packages "
                f"in reward.packages ({', '.join(allowed) or 'all but the standard library'})"
            )

    def _fetch_code(self, path: str, digest: str) -> Sandbox:
        try:
            code = read_object(self._store, f"data/sha256/{digest}", digest)
        except NotFound as error:
            raise NotFound(f"the code of the reward function, data/sha256/{digest}, is not in the store") from error
        alone = not is_folder(path)
        try:
            files = {safe_name(path.rpartition(":")[0].rpartition("/")[2]): code} if alone else unpack(code)
            return self._sandboxes.create(files, alone=alone)
        except InvalidData as error:
            raise RewardFunctionError(f"reward function {path!r} cannot be used: {error.message}") from error
        except OSError as error:
            raise Unavailable(f"no folder can be made for a reward function: {error}") from error

    async def _describe_failure(
        self, slot: _Slot, source: FunctionSource, batch: Batch, error: CallFailed
    ) -> RewardFunctionError:
        """Return the error that names the function, the sample and a way out."""
        way_out = f"; {error.advice}" if error.advice else ""
        if error.any_sample:
            return RewardFunctionError(f"reward function {source.path!r} {error.message}{way_out}")
        index = (
            error.sample if error.sample is not None else await self._find_failing_sample(slot, source, batch, error)
        )
        count = len(batch.samples)
        if index is None:
            where = f"on {count} samples together, and on none of them alone as far as tried; the first has"
        else:
            where = f"on sample {index} of {count} with"
        prompt = f"{batch.samples[index or 0].prompt!r:.80}"
        return RewardFunctionError(f"reward function {source.path!r} {error.message}, {where} prompt {prompt}{way_out}")

    async def _find_failing_sample(
        self, slot: _Slot, source: FunctionSource, batch: Batch, error: CallFailed
    ) -> int | None:
        """Return the index of the first sample that fails when the function is called on it alone."""
        if len(batch.samples) == 1:
            return 0
        until = time.monotonic() + min(BLAME_SECONDS, batch.timeout)
        for index, sample in enumerate(batch.samples):
            if (left := until - time.monotonic()) <= 0:
                return None
            try:
                await self._call(slot, source, batch, (sample,), left)
            except CallFailed as again:
                return index if again.hung == error.hung and not again.any_sample else None
        return None


def _columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Return one list for each argument. Quatrain's own arguments win over extra columns of the same name."""
    names = dict.fromkeys(name for sample in samples for name in sample.extra)
    columns: dict[str, list[Any]] = {name: [sample.extra.get(name) for sample in samples] for name in names}
    for reserved in ("trainer_state", "log_extra", "log_metric"):
        columns.pop(reserved, None)
    return columns | {
        "prompts": [sample.prompt for sample in samples],
        "completions": [_completion(sample) for sample in samples],
        "prompt_ids": [sample.prompt_ids for sample in samples],
        "completion_ids": [sample.completion_ids for sample in samples],
        "finish_reasons": [sample.finish_reason for sample in samples],
    }


def _completion(sample: Sample) -> str | list[dict[str, str]]:
    """Return the completion as a conversation if the prompt is one."""
    if isinstance(sample.prompt, str):
        return sample.completion
    return [{"role": "assistant", "content": sample.completion}]


def _scores(source: FunctionSource, reply: Returned, code_digest: str) -> SourceScores:
    terms = {source.name if name is None else name: values for name, values in reply.terms}
    # Arguments are part of what scored; code without any keeps the version that it always had.
    args = f"?{sha256_hex(canonical_json(dict(source.args)))}" if source.args else ""
    return SourceScores(
        values=tuple(_clipped(_sum(row), source.clip) for row in zip(*terms.values(), strict=True)),
        terms=terms,
        version=f"{source.path}@{code_digest}{args}",
        logged=reply.logged,
        metrics=reply.metrics,
    )


def _clipped(value: float | None, clip: float | None) -> float | None:
    """Return the value within +-clip. One that is not finite stays as it is, so that the sample is refused."""
    if value is None or clip is None or not math.isfinite(value):
        return value
    return max(-clip, min(clip, value))


def _sum(row: Sequence[float | None]) -> float | None:
    """Return the sum of the values that are not None, None if all are."""
    given = [value for value in row if value is not None]
    return sum(given) if given else None
