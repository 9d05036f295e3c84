"""Checks that the object store keeps `If-None-Match: *` and shows writes at once, on which the job log depends."""

import sys

from quatrain.config import load_config
from quatrain.errors import QuatrainError
from quatrain.storage import open_store, probe_store


def main() -> int:
    """Return 0 when the store is fit."""
    try:
        store = open_store(load_config("test", []).config.storage)
        probe_store(store)
    except QuatrainError as error:
        print(error.message)
        return 1
    print(f"{store.name}: a second write with If-None-Match is refused, GET and LIST show what was written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
