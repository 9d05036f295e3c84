"""The requests of the reward service to a runner: one to load a function, then calls of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from quatrain.reward.runner.confinement import Confinement
from quatrain.reward.runner.frames import Message


@dataclass(frozen=True)
class LoadRequest:
    """A request to confine the process, then load the function that `target` names.

    Uploaded code is one `file`, or a `folder` whose modules can be imported.
    """

    target: str
    file: str | None = None
    folder: str | None = None
    confinement: Confinement | None = None

    def to_json(self) -> dict[str, object]:
        """Return the message of this request."""
        return asdict(self)

    @classmethod
    def from_json(cls, message: Message) -> "LoadRequest":
        """Return the request that a message holds."""
        limits = message.get("confinement")
        confinement = None if limits is None else Confinement.from_json(limits)
        return cls(message["target"], message.get("file"), message.get("folder"), confinement)

    @property
    def uploaded(self) -> bool:
        """Whether the code was uploaded, and is not installed."""
        return self.file is not None or self.folder is not None


@dataclass(frozen=True)
class CallRequest:
    """A request to call the function with one list for each column, and with `args` of the spec as they are.

    `timeout` is the service's, in seconds.
    """

    columns: Mapping[str, list[Any]]
    trainer_state: Mapping[str, object]
    timeout: float
    args: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the message of this request."""
        return dict(vars(self))
