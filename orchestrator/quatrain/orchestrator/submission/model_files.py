"""What files a model may have, wherever they come from."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from quatrain.errors import InvalidInput

MAX_FILES = 2000


def check_apart(paths: Sequence[PurePosixPath]) -> None:
    """Raises InvalidInput when two files have one path, or one lies in another."""
    taken = set(paths)
    if len(taken) < len(paths):
        raise InvalidInput("two files of the model have the same path")
    for path in paths:
        for folder in path.parents:
            if folder in taken:
                raise InvalidInput(f"{str(folder)!r} is a file and a folder of the model")
