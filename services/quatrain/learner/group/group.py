"""The ranks of one learner over torch.distributed: gloo between CPUs and for all that is small, NCCL between GPUs.

A rank computes inside a block only, and every block is one command of rank 0::

    with group.broadcast_command("train", step=7):    command = group.next_command()
        ...                                           with CollectiveBlock(group):
                                                          ...

What holds between two blocks:
- `_commands`, the number of commands so far, is the same on all ranks.
- No collective operation is under way. A block ends with a barrier on all ranks, whether it succeeded or not, so the
  next operation of any rank belongs to the next command.

What holds inside a block:
- A rank that stops with an error sets the key stopped/N of command N and goes to a barrier. The others see the key
  between microbatches (`check_peers`), or come to a barrier anyway before their next collective operation.
- A barrier that finds a stopped rank exchanges the errors and sets `_stopped` on all ranks; then the block ends on all
  of them without another barrier.

`_lost` is set once, by the computing thread or by the one that watches, and is never taken back: from then on every
operation raises it, and `watch` ends the process.
"""

import asyncio
import os
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from typing_extensions import override

from quatrain.digests import canonical_json, parse_json
from quatrain.errors import Corrupt, QuatrainError, RunFailed, Unavailable
from quatrain.json_values import JsonObject, JsonValue
from quatrain.learner.backends.ranks import Ranks
from quatrain.learner.group.codec import error_from_bytes, error_to_bytes
from quatrain.learner.group.place import Launcher, Place

BUCKET_BYTES = 64 << 20
_POLL_SECONDS = 0.01


class RankLost(Unavailable):
    """A rank is gone or out of step: no collective operation can succeed any more, and this process has to end."""


class Group(Ranks):
    """One process's side of the group. All methods except `watch` and `join` belong to the thread that computes."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self.size = place.size
        self.rank = place.rank
        self._place = place
        self._device = device
        self._lost: RankLost | None = None
        self._joined = False
        self._commands = 0
        self._stopped = False
        self._heartbeats: dict[int, tuple[int, float]] = {}
        self._exchanged_at = 0.0

    def join(self) -> None:
        """Join the other ranks. Raises Unavailable when they do not come, or when rank 0 has its group already."""
        place, launcher, patience = self._place, Launcher.here(), timedelta(seconds=self._place.patience)
        if place.host in ("127.0.0.1", "localhost", "::1"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo"
        try:
            server = place.rank == 0 and not launcher.serves_rendezvous
            plain = _rendezvous(place, server, patience)
            prefix = f"quatrain/{launcher.restarts}"
            self._store = PrefixStore(prefix, plain)
            if self._store.add(f"joined/{place.rank}", 1) > 1:
                raise Unavailable(f"Rank {place.rank} has joined already: the group is not the one that begins now.")
            dist.init_process_group(
                backend,
                store=PrefixStore("group", self._store),
                rank=place.rank,
                world_size=place.size,
                timeout=patience,
            )
            # A connection of its own: the watching thread neither waits for the computing one nor shares its timeout.
            watched = plain.clone()  # type: ignore[attr-defined]
            watched.set_timeout(timedelta(seconds=place.silence))
            self._heartbeat_store = PrefixStore(prefix, watched)
        except (RuntimeError, OSError) as error:
            raise Unavailable(
                f"Rank {place.rank} of {place.size} found no group at {place.host}:{place.port}: {_line(error)}"
            ) from error
        self._joined = True

    async def watch(self) -> None:
        """Raise RankLost as soon as a rank is lost; does not return before."""
        while True:
            await asyncio.sleep(min(1.0, self._place.silence / 4))
            if self._lost is None and self._joined:
                await asyncio.to_thread(self._exchange_heartbeats)
            if self._lost is not None:
                raise self._lost

    # -- commands

    def broadcast_command(self, do: str, **arguments: JsonValue) -> "CollectiveBlock":
        """Send the other ranks their next command; the block is this rank's part of it."""
        self._commands += 1
        with self._losing_on_error():
            self._store.set(f"command/{self._commands}", canonical_json({"do": do, **arguments}).decode())
            self._store.delete_key(f"command/{self._commands - 1}")  # All ranks have left the one before.
            self._store.delete_key(f"stopped/{self._commands - 1}")
        return CollectiveBlock(self)

    def next_command(self) -> JsonObject:
        """Wait for the next command of rank 0, without a deadline, and return it. Raises RankLost."""
        key = f"command/{self._commands + 1}"
        with self._losing_on_error():
            while not self._store.check([key]):
                time.sleep(_POLL_SECONDS)
                if self._lost is not None:
                    raise self._lost
            command: JsonObject = parse_json(self._store.get(key))
        self._commands += 1
        return command

    def check_peers(self) -> None:
        """Raise the error of a rank that has stopped; called between microbatches."""
        with self._losing_on_error():
            stopped = self._store.check([f"stopped/{self._commands}"])
        if stopped:
            self.barrier()

    def barrier(self, error: BaseException | None = None) -> None:
        """Wait for all ranks, each of which brings the error that stopped it or None. Raises that of another rank."""
        with self._losing_on_error():
            if error is not None:
                self._store.set(f"stopped/{self._commands}", "")
            stopped = torch.tensor([int(error is not None)])
            dist.all_reduce(stopped)
        if not stopped.item():
            return
        self._stopped = True
        own = error_to_bytes(error, self.rank)
        with self._losing_on_error():
            rows = torch.zeros((self.size, len(own)), dtype=torch.uint8)
            rows[self.rank] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
            dist.all_reduce(rows)
        if error is None:
            raise next(failure for row in rows if (failure := error_from_bytes(bytes(row.tolist()))) is not None)

    # -- collective operations

    @override
    def all_gather(self, values: Sequence[float]) -> list[list[float]]:
        self.barrier()
        table = torch.zeros((self.size, len(values)), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        with self._losing_on_error():
            dist.all_reduce(table)
        rows: list[list[float]] = table.tolist()
        return rows

    @override
    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        # In few large buckets; equal tensors and ranks always give the same result.
        self.barrier()
        with torch.no_grad(), self._losing_on_error():
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                dist.all_reduce(flat)
                parts = torch.split(flat, [tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def broadcast(self, data: bytes | None, size: int) -> bytes:
        """Return the `size` bytes of rank 0; the other ranks give None."""
        buffer = torch.zeros(size, dtype=torch.uint8)
        if data:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.barrier()
        with self._losing_on_error():
            dist.broadcast(buffer, src=0)
        return buffer.numpy().tobytes()

    def compare(self, fingerprint: int) -> None:
        """Raise Corrupt on every rank when the ranks' weights are not the same."""
        theirs = [int(value) for (value,) in self.all_gather([float(fingerprint)])]
        if len(set(theirs)) > 1:
            raise Corrupt(
                f"The ranks of the learner hold different weights (fingerprints {theirs}); a device is broken."
            )

    # -- heartbeats

    def _exchange_heartbeats(self) -> None:
        now = time.monotonic()
        if now - self._exchanged_at > self._place.silence / 2:
            self._heartbeats.clear()  # This process stood still itself: it cannot tell which other one was silent.
        self._exchanged_at = now
        with self._losing_on_error(raises=False):
            self._heartbeat_store.add(f"heartbeat/{self.rank}", 1)
            for rank in range(self.size):
                count = self._heartbeat_store.add(f"heartbeat/{rank}", 0)
                before, since = self._heartbeats.get(rank, (-1, now))
                self._heartbeats[rank] = (count, now if count != before else since)
        for rank, (_, since) in self._heartbeats.items():
            if now - since > self._place.silence and self._lost is None:
                self._lost = RankLost(
                    f"Rank {rank} of the learner has sent no heartbeat for {now - since:.0f} s "
                    f"(learner.rank_timeout); this process ends, so that the group is started again."
                )

    def _losing_on_error(self, *, raises: bool = True) -> "_LosingOnError":
        return _LosingOnError(self, raises)


class CollectiveBlock:
    """A block that every rank runs. It ends with a barrier, so that it succeeds on all ranks or on none."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __enter__(self) -> None:
        self._group._stopped = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group = self._group
        if group._lost is not None:
            return
        # A barrier that stopped this rank has exchanged the errors already.
        if not group._stopped:
            group.barrier(error)
        if group.rank and error is not None and not isinstance(error, QuatrainError):
            # Rank 0 has this error and may go on, so this rank goes on as well.
            raise RunFailed(f"{type(error).__name__}: {error}") from error


class _LosingOnError:
    """A block in which an error of torch.distributed means that the group is lost."""

    def __init__(self, group: Group, raises: bool) -> None:
        self._group = group
        self._raises = raises

    def __enter__(self) -> None:
        if self._raises and self._group._lost is not None:
            raise self._group._lost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, RuntimeError):
            return False
        self._group._lost = self._group._lost or RankLost(
            f"Rank {self._group.rank} lost the other ranks of the learner ({_line(error)}); this process ends, so "
            "that the group is started again."
        )
        if self._raises:
            raise self._group._lost from error
        return True


def _rendezvous(place: Place, server: bool, patience: timedelta) -> TCPStore:
    listening = None
    if server and place.host in ("127.0.0.1", "localhost"):
        # Else torch listens on all addresses.
        listening = socket.create_server(("127.0.0.1", place.port)).detach()
    return TCPStore(
        place.host,
        place.port,
        is_master=server,
        timeout=patience,
        wait_for_workers=False,
        master_listen_fd=listening,
    )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.nbytes > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
