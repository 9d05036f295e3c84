"""The queue on Redis 7.0 or newer, or Valkey: streams with one consumer group a pool.

Blocking reads have connections of their own and wait for less than the socket time-out. Every command is shielded from
the cancellation of its caller and ends by itself: a connection whose reply is outstanding would answer the next command
with it, and redis-py writes under `asyncio.wait_for`, which in Python 3.11 can swallow a cancellation.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from typing_extensions import override

from quatrain.errors import InvalidInput, Unavailable, untrusted
from quatrain.queue.names import GROUP, SENTINEL, check_name, job_key, owner_key, rollouts_key, tasks_key
from quatrain.queue.protocol import Backlog, Lease, RolloutQueue
from quatrain.queue.scripts import COMPLETE, FORGET_WORKERS, GONE, HOLD, RELEASE, RENEW

MAX_BLOCK = 2.0  # seconds; a longer wait ends early with nothing, the caller asks again
_BLOCKING_TIMEOUT = 8.0  # a server may block longer than it was asked to
_COMMAND_TIMEOUT = 2.0
_CONNECT_TIMEOUT = 2.0
_RETRIES = 2
_AT_ONCE = 1000

T = TypeVar("T")


def _check_password(url: str) -> None:
    """Raise ValueError where the password holds a bare slash, ? or #: its beginning would be taken for the host."""
    scheme, _, rest = url.partition("://")
    host, *after = re.split("[/?#]", rest, maxsplit=1)
    if scheme in ("redis", "rediss") and "@" not in host and any("@" in part for part in after):
        raise ValueError("bare special characters in the password")


class RedisQueue(RolloutQueue):
    """A `RolloutQueue` on one Redis server. It connects when first used; use and close it in one event loop."""

    def __init__(self, url: str) -> None:
        try:
            _check_password(url)
            self._redis = _client(url, _COMMAND_TIMEOUT)
            self._blocking = _client(url, _BLOCKING_TIMEOUT)
        except ValueError:
            # Its text may hold a part of the password: one with a slash in it ends the host too early.
            raise InvalidInput(
                "queue.url is no Redis address: redis://[user:password@]host:port/db is expected, with special "
                "characters of the password as %XX"
            ) from None
        settings = self._redis.connection_pool.connection_kwargs
        self._name = f"Redis at {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
        self._complete = self._redis.register_script(COMPLETE)
        self._renew = self._redis.register_script(RENEW)
        self._hold = self._redis.register_script(HOLD)
        self._release = self._redis.register_script(RELEASE)
        self._forget_workers = self._redis.register_script(FORGET_WORKERS)
        self._gone = self._redis.register_script(GONE)
        self._commands: set[asyncio.Task[Any]] = set()

    @override
    async def check(self) -> None:
        info = await self._run("INFO")
        version = str(info.get("redis_version", "0"))
        if int(version.partition(".")[0]) < 7:
            raise InvalidInput(f"{self._name} has version {version}; Redis 7.0 or newer, or Valkey, is needed")
        if info.get("cluster_enabled") or info.get("redis_mode") == "cluster":
            raise InvalidInput(f"{self._name} is a Redis Cluster, which is not supported; use a single server")
        if info.get("role") == "slave":
            raise InvalidInput(f"{self._name} is a replica; name the primary")
        policy = info.get("maxmemory_policy", "noeviction")
        if info.get("maxmemory") and policy != "noeviction":
            raise InvalidInput(f"{self._name} evicts keys ({policy}); set maxmemory-policy to noeviction")

    @override
    async def open_job(self, job: str) -> None:
        await self._run("SET", job_key(job), "open")

    @override
    async def close_job(self, job: str) -> None:
        await self._run("DEL", job_key(job), rollouts_key(job), owner_key(job))

    @override
    async def is_open(self, job: str) -> bool:
        return bool(await self._run("EXISTS", job_key(job)))

    @override
    async def add_task(self, pool: str, job: str, payload: bytes) -> str:
        fields = ("job", check_name("job", job), "nonce", secrets.token_hex(8), "payload", payload)
        entry_id: bytes = await self._run("XADD", tasks_key(pool), "*", *fields)
        return entry_id.decode()

    @override
    async def gone(self, pool: str, entry_ids: Sequence[str]) -> list[str]:
        found: list[bytes] = []
        for start in range(0, len(entry_ids), _AT_ONCE):
            with self._errors():
                keys, some = [tasks_key(pool)], entry_ids[start : start + _AT_ONCE]
                found += await self._shielded(self._gone(keys=keys, args=[GROUP, *some]))
        return [entry_id.decode() for entry_id in found]

    @override
    async def lease(self, pool: str, worker: str, *, count: int, block: float) -> list[Lease]:
        key = tasks_key(pool)
        command = ["XREADGROUP", "GROUP", GROUP, check_name("worker", worker), "COUNT", count]
        command += [*_block(block), "STREAMS", key, ">"]
        streams = await self._read(command)
        if streams is None:  # never made, or wiped: with id 0 the group is given what was added meanwhile
            await self._make_group(key)
            streams = await self._read(command)
        return [_lease(pool, worker, entry) for _, entries in streams or () for entry in entries]

    @override
    async def reclaim(self, pool: str, worker: str, *, idle: float, count: int) -> list[Lease]:
        key, cursor = tasks_key(pool), b"0-0"
        entries: list[tuple[bytes, dict[bytes, bytes]]] = []
        command = ("XAUTOCLAIM", key, GROUP, check_name("worker", worker), max(0, round(idle * 1000)))
        while len(entries) < count:
            reply = await self._run_in_group(*command, cursor, "COUNT", count - len(entries))
            if reply is None:
                break
            cursor = reply[0]
            entries += reply[1]
            if cursor == b"0-0":
                break
        return [_lease(pool, worker, entry) for entry in entries]

    @override
    async def renew(self, lease: Lease) -> bool:
        with self._errors():
            return bool(await self._shielded(self._renew(keys=[tasks_key(lease.pool)], args=_holder(lease))))

    @override
    async def complete(self, lease: Lease, results: Sequence[bytes]) -> bool:
        keys = [tasks_key(lease.pool), rollouts_key(lease.job), job_key(lease.job)]
        with self._errors():
            return bool(await self._shielded(self._complete(keys=keys, args=[*_holder(lease), *results])))

    @override
    async def read_results(self, job: str, after: str, *, count: int, block: float) -> list[tuple[str, bytes]]:
        streams = await self._read(["XREAD", "COUNT", count, *_block(block), "STREAMS", rollouts_key(job), after])
        return [(entry_id.decode(), fields[b"result"]) for _, entries in streams or () for entry_id, fields in entries]

    @override
    async def delete_results(self, job: str, entry_ids: Sequence[str]) -> None:
        for start in range(0, len(entry_ids), _AT_ONCE):
            await self._run("XDEL", rollouts_key(job), *entry_ids[start : start + _AT_ONCE])

    @override
    async def hold(self, job: str, owner: str, ttl: float) -> bool:
        with self._errors():
            args = [check_name("owner", owner), max(1, round(ttl * 1000))]
            return bool(await self._shielded(self._hold(keys=[owner_key(job)], args=args)))

    @override
    async def holder(self, job: str) -> str | None:
        owner: bytes | None = await self._run("GET", owner_key(job))
        return None if owner is None else owner.decode()

    @override
    async def holders(self, jobs: Sequence[str]) -> dict[str, str]:
        if not jobs:
            return {}
        owners: list[bytes | None] = await self._run("MGET", *map(owner_key, jobs))
        return {job: owner.decode() for job, owner in zip(jobs, owners, strict=True) if owner is not None}

    @override
    async def release(self, job: str, owner: str) -> None:
        with self._errors():
            await self._shielded(self._release(keys=[owner_key(job)], args=[owner]))

    @override
    async def sentinel(self) -> str:
        for _ in range(_RETRIES + 1):
            await self._run("SET", SENTINEL, secrets.token_hex(8), "NX")
            word: bytes | None = await self._run("GET", SENTINEL)
            if word is not None:
                return word.decode()
        raise Unavailable(f"{self._name} loses {SENTINEL} as soon as it is written; who wipes it?")

    @override
    async def leave(self, pool: str, worker: str) -> bool:
        return bool(await self._forget(pool, 0.0, check_name("worker", worker)))

    @override
    async def forget_workers(self, pool: str, *, idle: float) -> list[str]:
        return sorted(await self._forget(pool, idle, ""))

    @override
    async def backlog(self, pool: str) -> Backlog:
        key, leased = tasks_key(pool), 0
        for group in await self._run_in_group("XINFO GROUPS", key) or ():
            if group["name"] == GROUP.encode():
                leased = int(group["pending"])
                if group["lag"] is not None:  # unknown where others have deleted entries
                    return Backlog(int(group["lag"]), leased)
        return Backlog(max(0, int(await self._run("XLEN", key)) - leased), leased)

    @override
    async def close(self) -> None:
        """Close all connections, once running commands have ended or taken longer than they may."""
        if self._commands:
            await asyncio.wait(self._commands, timeout=MAX_BLOCK + 1)
        for command in self._commands:
            command.cancel()
        await self._redis.aclose()
        await self._blocking.aclose()

    async def _forget(self, pool: str, idle: float, worker: str) -> list[str]:
        with self._errors():
            args = [GROUP, max(0, round(idle * 1000)), worker]
            names = await self._shielded(self._forget_workers(keys=[tasks_key(pool)], args=args))
        return [name.decode() for name in names]

    async def _run(self, *command: Any) -> Any:
        with self._errors():
            return await self._shielded(self._redis.execute_command(*command))

    async def _run_in_group(self, *command: Any) -> Any:
        """Run the command; None when the stream or its group is not there."""
        with self._errors():
            try:
                return await self._shielded(self._redis.execute_command(*command))
            except ResponseError as error:
                if _is_missing(error):
                    return None
                raise

    async def _read(self, command: list[Any]) -> Any:
        """Read on an own connection; None when the stream or its group is not there, or is deleted meanwhile."""
        with self._errors():
            try:
                return await self._shielded(self._blocking.execute_command(*command)) or ()
            except ResponseError as error:
                if _is_missing(error):
                    return None
                raise

    async def _shielded(self, command: Awaitable[T]) -> T:
        task = asyncio.ensure_future(command)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        return await asyncio.shield(task)

    async def _make_group(self, key: str) -> None:
        with self._errors():
            try:
                command = ("XGROUP CREATE", key, GROUP, "0", "MKSTREAM")
                await self._shielded(self._redis.execute_command(*command))
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what redis-py raises into our errors."""
        try:
            yield
        except (AuthenticationError, AuthorizationError) as error:
            raise Unavailable(f"{self._name} refuses the user or password of queue.url: {error}") from error
        except (ConnectionError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._name} cannot be reached: {_explain(error)}") from error
        except OutOfMemoryError as error:
            raise Unavailable(f"{self._name} is full (maxmemory): give it more, or lower the staleness") from error
        except RedisError as error:
            raise Unavailable(f"{self._name} refused a command: {error}") from error


def _explain(error: Exception) -> str:
    if why := untrusted(error):
        return f"its {why}"
    return str(error) or type(error).__name__


def _client(url: str, timeout: float) -> Any:
    """Return a client with its own pool. Any: redis-py leaves `execute_command` without types."""
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=_CONNECT_TIMEOUT,
        health_check_interval=0,
        retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), _RETRIES),
    )


def _block(seconds: float) -> list[Any]:
    """Return the option to block. Redis blocks without end at BLOCK 0, so no wait sends none."""
    return ["BLOCK", max(1, round(min(seconds, MAX_BLOCK) * 1000))] if seconds > 0 else []


def _holder(lease: Lease) -> list[Any]:
    return [GROUP, lease.entry_id, lease.worker, lease.nonce]


def _lease(pool: str, worker: str, entry: tuple[bytes, dict[bytes, bytes]]) -> Lease:
    entry_id, fields = entry
    job, nonce = fields[b"job"].decode(), fields[b"nonce"].decode()
    return Lease(pool, entry_id.decode(), worker, job, fields[b"payload"], nonce)


def _is_missing(error: ResponseError) -> bool:
    """Return whether stream or group are missing: NOGROUP, no such key, or UNBLOCKED when a reader lost the stream."""
    return any(word in str(error) for word in ("NOGROUP", "UNBLOCKED", "no such key"))
