"""Where the local state lies, and how a client finds the API.

The state folder is `$QUATRAIN_HOME`, else `.quatrain` beside the `.venv` in use, else the XDG state folder, so two
checkouts never share a stack. `endpoint.json` in it says where the API is.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from quatrain.errors import InvalidInput, PermissionRefused, Unavailable
from quatrain.process.files import write_whole
from quatrain.rpc.certificates import CertificateFiles

ENDPOINT_FILE = "endpoint.json"


@dataclass(frozen=True)
class Endpoint:
    """The address of the API.

    `api` is host:port, or https://host:port; `dashboard` a URL; `token_file` the path of the file that holds the bearer
    token; `ca_file` the path of the authorities of the API's certificate.
    """

    api: str
    dashboard: str | None = None
    token_file: str | None = None
    ca_file: str | None = None


def state_folder(environment: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> Path:
    """Return the folder of the local state; it may not exist yet. `prefix` is the environment that Python runs in."""
    if environment.get("QUATRAIN_HOME"):
        return Path(environment["QUATRAIN_HOME"]).expanduser().absolute()
    if Path(prefix).name == ".venv":
        return Path(prefix).parent / ".quatrain"
    state = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "quatrain"


def write_endpoint(home: Path, endpoint: Endpoint) -> None:
    """Write `endpoint.json`, whole or not at all."""
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / ENDPOINT_FILE, json.dumps(asdict(endpoint), indent=2) + "\n")


def remove_endpoint(home: Path) -> None:
    """Remove `endpoint.json`. Idempotent."""
    (home / ENDPOINT_FILE).unlink(missing_ok=True)


def read_endpoint(home: Path) -> Endpoint | None:
    """Return what `endpoint.json` says; None when there is none. Raises InvalidInput when it is damaged."""
    path = home / ENDPOINT_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Endpoint(
            str(document["api"]), document.get("dashboard"), document.get("token_file"), document.get("ca_file")
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is damaged ({error!r}); `quatrain down` and `quatrain up` write it anew") from error


def find_endpoint(environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the API's address: `$QUATRAIN_ENDPOINT`, else the local stack's. Raises Unavailable without either."""
    home = state_folder(environment)
    if environment.get("QUATRAIN_ENDPOINT"):
        return Endpoint(environment["QUATRAIN_ENDPOINT"])
    endpoint = read_endpoint(home)
    if endpoint is None:
        raise Unavailable(
            f"no Quatrain is known here: QUATRAIN_ENDPOINT is not set and {home / ENDPOINT_FILE} does not exist; "
            "start the local stack with `quatrain up`, or set QUATRAIN_ENDPOINT=HOST:PORT"
        )
    return endpoint


def find_token(endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the bearer token: `$QUATRAIN_TOKEN`, else what `$QUATRAIN_TOKEN_FILE` or the endpoint's token file holds.

    None without any. Raises PermissionRefused when the file cannot be read."""
    if environment.get("QUATRAIN_TOKEN"):
        return environment["QUATRAIN_TOKEN"]
    path = environment.get("QUATRAIN_TOKEN_FILE") or endpoint.token_file
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise PermissionRefused(f"the token file {path} cannot be read: {reason}") from error


def find_certificates(endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> CertificateFiles:
    """Return `$QUATRAIN_CA`, else the endpoint's authorities, and the client's `$QUATRAIN_CERT` and `$QUATRAIN_KEY`."""
    ca = environment.get("QUATRAIN_CA") or endpoint.ca_file
    cert, key = environment.get("QUATRAIN_CERT"), environment.get("QUATRAIN_KEY")
    return CertificateFiles(*(Path(path).expanduser() if path else None for path in (cert, key, ca)))


def allows_plaintext(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether `$QUATRAIN_INSECURE` lets a token travel in plaintext to other machines."""
    return environment.get("QUATRAIN_INSECURE", "").lower() in ("1", "true", "yes")
