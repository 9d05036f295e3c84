"""The answers of an S3 server: which are worth another try, for how long, and what the others mean."""

import time
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from quatrain.backoff import Backoff
from quatrain.errors import QuatrainError, Unavailable, untrusted

# What a request may raise: the network, the server, or an answer that was cut off.
S3_FAILURES = (HTTPError, MinioException, ParseError, OSError)

_TRANSIENT_CODES = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "TooManyRequests",
        "XMinioServerNotInitialized",
    }
)
_FULL_CODES = frozenset({"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
_ACCESS_CODES = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
_BACKOFF = Backoff(first=0.1, longest=2.0, jitter=0.5)


class S3Refused(Unavailable):
    """A refusal of the server: there is no such bucket, or no access. `code` is the server's name for it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class RetryBudget:
    """The retries of one operation: after each failure it pauses, or raises Unavailable.

    The pauses double from 0.1 s to 2 s, with jitter; the operation fails `total_wait` seconds after its first failure.
    """

    def __init__(self, store: str, operation: str, total_wait: float) -> None:
        self._store = store
        self._operation = operation
        self._total_wait = total_wait
        self._until: float | None = None
        self._failures = 0

    def after(self, error: Exception) -> None:
        """Sleep before another try. Raises Unavailable when another try is pointless or the time is up."""
        if not is_transient(error):
            raise self.refusal(error) from error
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._total_wait
        self._failures += 1
        pause = _BACKOFF.pause(self._failures)
        if now + pause > self._until:
            raise self.refusal(error) from error
        time.sleep(pause)

    def progressed(self) -> None:
        """Note that a part of the work is done: the next failure is a first one."""
        self._until = None
        self._failures = 0

    def refusal(self, error: Exception) -> QuatrainError:
        """Return the error for the caller."""
        message = f"{self._store}: {self._operation}: {_explain(error)}"
        if isinstance(error, S3Error) and (error.code == "NoSuchBucket" or error.code in _ACCESS_CODES):
            return S3Refused(message, error.code)
        return Unavailable(message)


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    if isinstance(error, S3Error):
        if error.code in _FULL_CODES:
            return False
        return error.code in _TRANSIENT_CODES or error.response.status in (429, 500, 502, 503, 504)
    if isinstance(error, ServerError):
        return error.status_code >= 500 or error.status_code == 429
    return isinstance(error, HTTPError | InvalidResponseError | ParseError | OSError)


def is_missing(error: Exception) -> bool:
    """Return whether the object is not there."""
    return isinstance(error, S3Error) and error.code in ("NoSuchKey", "NotFound")


def _explain(error: Exception) -> str:
    code = error.code if isinstance(error, S3Error) else None
    if code in _FULL_CODES:
        return f"the store is full ({code}); free or add space"
    if code == "NoSuchBucket":
        return "the bucket is not there; create it, or correct storage.bucket"
    if code in _ACCESS_CODES:
        return f"access refused ({code}); check storage.access_key, storage.secret_key and the bucket's policy"
    if code == "RequestTimeTooSkewed":
        return "this machine's clock and the store's differ too much; set the clock"
    if code is not None and isinstance(error, S3Error):
        return f"the store answered {code}: {error.message}"
    if why := untrusted(error):
        return f"the store's {why}"
    return f"the store cannot be reached or answers wrongly: {type(error).__name__}: {error}"
