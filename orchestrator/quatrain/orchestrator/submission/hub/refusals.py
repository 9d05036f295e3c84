"""What the Hub's client raises, as errors of ours: what happened, and the way out. Never its texts, which hold URLs."""

import httpx
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quatrain.errors import Corrupt, InvalidData, InvalidInput, NotFound, QuatrainError, Unavailable
from quatrain.orchestrator.submission.hub.address import HubAddress
from quatrain.storage.files import disk_error

TOKEN = "the token in sources.hub_token (a secret of the server)"
RAISED = (OSError, httpx.HTTPError, HFValidationError, EntryNotFoundError)
"""What calls of the client raise."""


def refusal(address: HubAddress, error: Exception, endpoint: str) -> QuatrainError:
    """Return the error for people."""
    uri, page = address.uri, f"{endpoint.rstrip('/')}/{address.page}"
    match error:
        case GatedRepoError():
            return InvalidData(
                f"{uri} is gated: accept its terms at {page} with the account whose token the server has, or give the "
                f"server such an account as {TOKEN}"
            )
        case RevisionNotFoundError():
            return NotFound(f"{uri}: the repository has no revision {address.revision!r}; {page}/tree/main lists them")
        case RepositoryNotFoundError():
            return NotFound(
                f"{uri}: there is no such repository, or it is private, which looks the same: check the name at "
                f"{page}, or let the operator set {TOKEN} to one of an account that may read it"
            )
        case RemoteEntryNotFoundError():
            return Corrupt(f"{uri} lists a file that is not there: it changed while it was read; submit again")
        case DisabledRepoError():
            return InvalidData(f"{uri} was taken down by the Hub: name another repository; {page} says why")
        case LocalEntryNotFoundError():
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError | httpx.HTTPError | FileMetadataError):
                return refusal(address, cause, endpoint)
            return Unavailable(f"{uri} cannot be read now: the Hub was not reached")
        case HfHubHTTPError():
            return _of_status(uri, error.response.status_code)
        case httpx.HTTPError():
            return Unavailable(f"{uri} cannot be read now ({type(error).__name__}): the Hub did not answer in whole")
        case FileMetadataError():
            return InvalidData(f"{uri}: the server behind sources.hub_endpoint does not answer as a Hub does")
        case HFValidationError():
            return InvalidInput(f"{uri} names no repository of the Hub: give ORG/NAME")
        case OSError() if error.errno is not None:
            return disk_error(error, f"the Hub's cache, for {uri}")
        case _:
            return Unavailable(f"{uri} was cut off or changed while it was read; submit again")


def _of_status(uri: str, status: int) -> QuatrainError:
    if status in (401, 403):
        return InvalidData(f"{uri}: the Hub refused access ({status}): the operator can check {TOKEN}")
    if status == 429:
        return Unavailable(f"{uri} cannot be read now: the Hub limits how often it is asked (429); {TOKEN} raises that")
    if status >= 500 or status == 408:
        return Unavailable(f"{uri} cannot be read now: the Hub answered {status}")
    return InvalidData(f"{uri}: the Hub answered {status}; check the name and sources.hub_endpoint")
