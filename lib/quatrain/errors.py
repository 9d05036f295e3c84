"""Every error that Quatrain raises on purpose.

    QuatrainError
    ├── InvalidInput            the caller sent something wrong (field violations say what)
    │   ├── InvalidSpec
    │   ├── InvalidData
    │   └── RewardFunctionError
    ├── NotFound
    ├── AlreadyExists
    ├── WrongState              the request does not fit the state that the receiver is in
    │   ├── Fenced              a newer owner or attempt exists
    │   └── LearnerBusy
    ├── Unauthenticated         the caller did not prove who they are
    ├── PermissionRefused
    ├── Overloaded              try again later
    ├── Unavailable             a peer, the store or the queue cannot be reached now
    ├── DeadlineExpired
    ├── Corrupt                 bytes do not match their digest, or cannot be read
    ├── RunFailed               the computation itself failed
    │   └── OutOfMemory         the device or the machine has too little memory for it
    └── NotBuilt                the method exists in the contract but not in this version

`rpc/errors.py` maps each class to one gRPC status. `reason` is a stable word for programs; the message is for people
and says what happened, why, and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field: its dotted path (`ppo.kl.coef`) and what is wrong with it."""

    field: str
    description: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", _text(self.field))
        object.__setattr__(self, "description", _text(self.description))


def _text(said: str) -> str:
    """Return the text as it can be sent and stored: values in it may hold half a surrogate pair, which has no bytes."""
    return said.encode(errors="backslashreplace").decode()


def untrusted(error: Exception) -> str:
    """Return the words for a server certificate that no authority vouches for; empty when the error is another one."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    return f"certificate is not trusted; the file in SSL_CERT_FILE names further authorities: {error}"


class QuatrainError(Exception):
    """Root of the tree."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        self.message = _text(message)
        super().__init__(self.message)
        self.code_reason = reason or type(self).reason


class InvalidInput(QuatrainError):
    """The caller sent something wrong."""

    reason = "INVALID_INPUT"

    def __init__(self, message: str, violations: Sequence[FieldViolation] = (), *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.violations = tuple(violations)


class InvalidSpec(InvalidInput):
    """The job spec is wrong."""

    reason = "INVALID_SPEC"


class InvalidData(InvalidInput):
    """A data set, model or tokenizer that the spec names is wrong."""

    reason = "INVALID_DATA"


class RewardFunctionError(InvalidInput):
    """A reward function raised, hung, or returned the wrong thing."""

    reason = "REWARD_FUNCTION_FAILED"


class NotFound(QuatrainError):
    """The named thing does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(QuatrainError):
    """The name is taken by something else."""

    reason = "ALREADY_EXISTS"


class WrongState(QuatrainError):
    """The request does not fit the state that the receiver is in."""

    reason = "WRONG_STATE"


class Fenced(WrongState):
    """A newer owner or attempt exists; the caller must stop."""

    reason = "FENCED"


class LearnerBusy(WrongState):
    """The learner serves another job."""

    reason = "LEARNER_BUSY"


class Unauthenticated(QuatrainError):
    """The caller sent no token, or one that is not valid."""

    reason = "UNAUTHENTICATED"


class PermissionRefused(QuatrainError):
    """The caller may not do this."""

    reason = "PERMISSION_DENIED"


class Overloaded(QuatrainError):
    """The receiver's queue is full; try again after `retry_after` seconds."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: float = 0.5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(QuatrainError):
    """A peer, the object store or Redis cannot be reached now."""

    reason = "UNAVAILABLE"


class DeadlineExpired(QuatrainError):
    """Something took longer than it may."""

    reason = "DEADLINE_EXCEEDED"


TRANSIENT_ERRORS = (Unavailable, Overloaded, DeadlineExpired)
"""Errors that are not about the request itself: trying again later may help."""


class Corrupt(QuatrainError):
    """Bytes do not match their digest, or cannot be read as what they should be."""

    reason = "CORRUPT"


class RunFailed(QuatrainError):
    """The computation itself failed."""

    reason = "RUN_FAILED"


class OutOfMemory(RunFailed):
    """The computation needs more memory than the device, or the machine, has."""

    reason = "OUT_OF_MEMORY"


class NotBuilt(QuatrainError):
    """The contract has this, this version does not."""

    reason = "NOT_IMPLEMENTED"
