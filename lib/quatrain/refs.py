"""Names of things in the object store, by location and content: models, objects, prepared tables.

A reference is immutable, and what it names never changes: the digest vouches for every byte. Each class has a form
in JSON (events, spec.json) and on the wire.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from quatrain.json_values import JsonObject, as_int
from quatrain.v1 import common_pb2

Json = Mapping[str, object]


@dataclass(frozen=True)
class ModelRef:
    """A folder with a model, a tokenizer or both: its URI and the sha256 of its manifest.

    `policy_version` is the number of PPO steps that made the model; None for a model that is not a policy version.
    """

    uri: str
    digest: str
    policy_version: int | None = None

    @staticmethod
    def by_digest(digest: str) -> "ModelRef":
        """Return the reference of a model that lies under its own digest."""
        return ModelRef(f"sha256:{digest}", digest)

    def at_version(self, policy_version: int) -> "ModelRef":
        """Return the same folder as a policy version."""
        return replace(self, policy_version=policy_version)

    def to_json(self) -> JsonObject:
        """Return the JSON form; a version that is None is left out."""
        version = {} if self.policy_version is None else {"policy_version": self.policy_version}
        return {"uri": self.uri, "digest": self.digest, **version}

    @staticmethod
    def from_json(data: Json) -> "ModelRef":
        """Reverse `to_json`. Raises KeyError, TypeError, ValueError."""
        version = data.get("policy_version")
        return ModelRef(str(data["uri"]), str(data["digest"]), None if version is None else as_int(version))

    def to_proto(self) -> common_pb2.ModelRef:
        """Return the message."""
        return common_pb2.ModelRef(uri=self.uri, digest=self.digest, policy_version=self.policy_version)

    @staticmethod
    def from_proto(message: common_pb2.ModelRef) -> "ModelRef":
        """Reverse `to_proto`."""
        version = message.policy_version if message.HasField("policy_version") else None
        return ModelRef(message.uri, message.digest, version)


@dataclass(frozen=True)
class ObjectRef:
    """An object: its key, its sha256, and its size in bytes (0: not known)."""

    key: str
    sha256: str
    size: int = 0

    def to_json(self) -> JsonObject:
        """Return the JSON form."""
        return {"key": self.key, "sha256": self.sha256, "size": self.size}

    @staticmethod
    def from_json(data: Json) -> "ObjectRef":
        """Reverse `to_json`. Raises KeyError, TypeError, ValueError."""
        return ObjectRef(str(data["key"]), str(data["sha256"]), as_int(data.get("size", 0)))

    def to_proto(self) -> common_pb2.ObjectRef:
        """Return the message."""
        return common_pb2.ObjectRef(key=self.key, sha256=self.sha256, size=self.size)

    @staticmethod
    def from_proto(message: common_pb2.ObjectRef) -> "ObjectRef":
        """Reverse `to_proto`."""
        return ObjectRef(message.key, message.sha256, message.size)


@dataclass(frozen=True)
class TableRef:
    """A prepared table of rows (`quatrain.data.tables`) and how many it has."""

    key: str
    sha256: str
    size: int
    rows: int

    def to_json(self) -> JsonObject:
        """Return the JSON form."""
        return {"key": self.key, "sha256": self.sha256, "size": self.size, "rows": self.rows}

    @staticmethod
    def from_json(data: Json) -> "TableRef":
        """Reverse `to_json`. Raises KeyError, TypeError, ValueError."""
        return TableRef(str(data["key"]), str(data["sha256"]), as_int(data["size"]), as_int(data["rows"]))

    def to_proto(self) -> common_pb2.ObjectRef:
        """Return the message that names the object. It has no number of rows: the reader of the table counts them."""
        return common_pb2.ObjectRef(key=self.key, sha256=self.sha256, size=self.size)
