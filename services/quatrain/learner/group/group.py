"""The ranks of one learner over torch.distributed: gloo between CPUs and for all that is small, NCCL between GPUs."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from quatrain.digests import canonical_json, parse_json
from quatrain.errors import Corrupt, QuatrainError, RunFailed, Unavailable
from quatrain.learner.backends.ranks import Ranks
from quatrain.learner.group.failures import from_bytes, to_bytes
from quatrain.learner.group.place import Launcher, Place

BUCKET_BYTES = 64 << 20
_LOOK_SECONDS = 0.01


class RankLost(Unavailable):
    """A rank is gone, or out of step: nothing can be added up any more, and this process has to end."""


class Group(Ranks):
    """One process's side of the group. All methods but `watch` and `join` are for the thread that computes."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self.size = place.size
        self.number = place.number
        self._place = place
        self._device = device
        self._lost: RankLost | None = None
        self._joined = False
        self._orders = 0
        self._stopped = False
        self._seen: dict[int, tuple[int, float]] = {}
        self._looked = 0.0

    def join(self) -> None:
        """Meets the other ranks. Raises Unavailable when they do not come, or when rank 0 has its group already."""
        place, launcher, patience = self._place, Launcher.here(), timedelta(seconds=self._place.patience)
        if place.host in ("127.0.0.1", "localhost", "::1"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo"
        try:
            server = place.number == 0 and not launcher.serves_rendezvous
            plain = _rendezvous(place, server, patience)
            prefix = f"quatrain/{launcher.restarts}"
            self._store = PrefixStore(prefix, plain)
            if self._store.add(f"joined/{place.number}", 1) > 1:
                raise Unavailable(f"Rank {place.number} has joined already: the group is not the one that begins now.")
            dist.init_process_group(
                backend,
                store=PrefixStore("group", self._store),
                rank=place.number,
                world_size=place.size,
                timeout=patience,
            )
            signs = plain.clone()  # type: ignore[attr-defined]
            signs.set_timeout(timedelta(seconds=place.silence))
            self._signs = PrefixStore(prefix, signs)
        except (RuntimeError, OSError) as error:
            raise Unavailable(
                f"Rank {place.number} of {place.size} found no group at {place.host}:{place.port}: {_line(error)}"
            ) from error
        self._joined = True

    async def watch(self) -> None:
        """Raises RankLost as soon as a rank is lost, else never ends."""
        while True:
            await asyncio.sleep(min(1.0, self._place.silence / 4))
            if self._lost is None and self._joined:
                await asyncio.to_thread(self._exchange_signs)
            if self._lost is not None:
                raise self._lost

    # -- what has to be done

    def order(self, what: str, **details: Any) -> "Together":
        """Tells the other ranks what to do next; the block is this rank's part of it."""
        self._orders += 1
        with self._or_lost():
            self._store.set(f"order/{self._orders}", canonical_json({"do": what, **details}).decode())
            self._store.delete_key(f"order/{self._orders - 1}")  # Everybody has left the one before.
            self._store.delete_key(f"stopped/{self._orders - 1}")
        return Together(self)

    def next_order(self) -> dict[str, Any]:
        """What rank 0 wants done next; waits for as long as it wants nothing. Raises RankLost."""
        key = f"order/{self._orders + 1}"
        with self._or_lost():
            while not self._store.check([key]):
                time.sleep(_LOOK_SECONDS)
                if self._lost is not None:
                    raise self._lost
            order: dict[str, Any] = parse_json(self._store.get(key))
        self._orders += 1
        return order

    def look(self) -> None:
        """Between microbatches: raises the error of a rank that has stopped."""
        with self._or_lost():
            stopped = self._store.check([f"stopped/{self._orders}"])
        if stopped:
            self.meet()

    def meet(self, error: BaseException | None = None) -> None:
        """All ranks come here, each with the error that stopped it or None. Raises that of another one."""
        with self._or_lost():
            if error is not None:
                self._store.set(f"stopped/{self._orders}", "")
            stopped = torch.tensor([int(error is not None)])
            dist.all_reduce(stopped)
        if not stopped.item():
            return
        self._stopped = True
        told = to_bytes(error, self.number)
        with self._or_lost():
            rows = torch.zeros((self.size, len(told)), dtype=torch.uint8)
            rows[self.number] = torch.frombuffer(bytearray(told), dtype=torch.uint8)
            dist.all_reduce(rows)
        if error is None:
            raise next(failure for row in rows if (failure := from_bytes(bytes(row.tolist()))) is not None)

    # -- what is added up

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every rank."""
        self.meet()
        table = torch.zeros((self.size, len(values)), dtype=torch.float64)
        table[self.number] = torch.tensor(values, dtype=torch.float64)
        with self._or_lost():
            dist.all_reduce(table)
        rows: list[list[float]] = table.tolist()
        return rows

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sums in few large buckets; of equal tensors and ranks the result is always the same."""
        self.meet()
        with torch.no_grad(), self._or_lost():
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                dist.all_reduce(flat)
                parts = torch.split(flat, [tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def broadcast(self, data: bytes | None, size: int) -> bytes:
        """The `size` bytes of rank 0; the others give None."""
        buffer = torch.zeros(size, dtype=torch.uint8)
        if data:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.meet()
        with self._or_lost():
            dist.broadcast(buffer, src=0)
        return buffer.numpy().tobytes()

    def compare(self, fingerprint: int) -> None:
        """Raises Corrupt on every rank when the ranks' weights are not the same."""
        theirs = [int(value) for (value,) in self.gather([float(fingerprint)])]
        if len(set(theirs)) > 1:
            raise Corrupt(
                f"The ranks of the learner hold different weights (fingerprints {theirs}); a device is broken."
            )

    # -- signs of life

    def _exchange_signs(self) -> None:
        now = time.monotonic()
        if now - self._looked > self._place.silence / 2:
            self._seen.clear()  # This process stood still itself: it cannot tell who else was silent.
        self._looked = now
        with self._or_lost(raises=False):
            self._signs.add(f"sign/{self.number}", 1)
            for rank in range(self.size):
                count = self._signs.add(f"sign/{rank}", 0)
                before, since = self._seen.get(rank, (-1, now))
                self._seen[rank] = (count, now if count != before else since)
        for rank, (_, since) in self._seen.items():
            if now - since > self._place.silence and self._lost is None:
                self._lost = RankLost(
                    f"Rank {rank} of the learner has given no sign of life for {now - since:.0f} s "
                    f"(learner.rank_timeout); this process ends, so that the group is started again."
                )

    def _or_lost(self, *, raises: bool = True) -> "_OrLost":
        return _OrLost(self, raises)


class Together:
    """A block that every rank runs: ends with a meeting, so that it succeeds on all ranks or on none."""

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
        # Whoever stopped in a meeting has nothing to tell.
        if not group._stopped:
            group.meet(error)
        if group.number and error is not None and not isinstance(error, QuatrainError):
            # Rank 0 has been told and may go on, so this rank does, too.
            raise RunFailed(f"{type(error).__name__}: {error}") from error


class _OrLost:
    """What torch.distributed raises in the block is the loss of the group."""

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
            f"Rank {self._group.number} lost the other ranks of the learner ({_line(error)}); this process ends, so "
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
