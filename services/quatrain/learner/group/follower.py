"""The side of the ranks other than 0: runs the commands of rank 0 and serves nothing but health."""

import asyncio

from quatrain.errors import QuatrainError, WrongState
from quatrain.json_values import JsonObject
from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends.ranks import RankedTrainer
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.learner.group.codec import request_from_json
from quatrain.learner.group.group import CollectiveBlock, Group, RankLost
from quatrain.learner.requests import OpenRequest
from quatrain.process.model_thread import ModelThread, made_progress
from quatrain.telemetry.logging import get_logger

_log = get_logger("quatrain.learner")


class Follower:
    """One rank's copy of the stage that rank 0 has open."""

    def __init__(self, backend: TorchBackend, artifacts: Artifacts, group: Group) -> None:
        self._backend = backend
        self._artifacts = artifacts
        self._group = group
        self._request: OpenRequest | None = None
        self._trainer: RankedTrainer | None = None

    async def follow(self, thread: ModelThread) -> None:
        """Run the commands of rank 0 until the group is lost. Raises RankLost then.

        Any other error of this rank is sent to rank 0, which raises it; the stage has to be opened again after that.
        """
        while True:
            command = await asyncio.to_thread(self._group.next_command)
            try:
                await thread.run(self.execute, command)
            except RankLost:
                raise
            except QuatrainError as error:
                self._request = self._trainer = None
                _log.warning("command failed", command=command["do"], why=error.message, exc_info=error.__cause__)

    def execute(self, command: JsonObject) -> None:
        """Run one command together with the other ranks."""
        with CollectiveBlock(self._group):
            match command:
                case {"do": "open", "request": dict(document)}:
                    self._open(request_from_json(document))
                case {"do": "load"}:
                    self._load()
                case {"do": "train", "step": int(step), "size": int() | None as size}:
                    self._train(step, size)
                case _:
                    raise WrongState(
                        f"Rank 0 sent the command {command.get('do')!r}, which this version does not know."
                    )

    def _open(self, request: OpenRequest) -> None:
        self._request = self._trainer = None
        trainer = self._backend.open(request, self._artifacts.fetch(request))
        self._group.compare(trainer.fingerprint())
        self._request, self._trainer = request, trainer

    def _load(self) -> None:
        request, trainer = self._opened()
        if request.checkpoint is None:
            raise WrongState("The open stage names no checkpoint.")
        trainer.load(self._artifacts.checkpoint_folder(request.checkpoint))
        self._group.compare(trainer.fingerprint())

    def _train(self, step: int, size: int | None) -> None:
        _, trainer = self._opened()
        batch = None if size is None else self._group.broadcast(None, size)
        trainer.train(step, batch, self._check)
        self._group.compare(trainer.fingerprint())

    def _opened(self) -> tuple[OpenRequest, RankedTrainer]:
        if self._request is None or self._trainer is None:
            raise WrongState("This rank has no open stage; open it again.")
        return self._request, self._trainer

    def _check(self) -> None:
        made_progress()
        self._group.check_peers()
