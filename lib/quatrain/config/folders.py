"""Folders that a process needs: they are made when missing, and tested before anything depends on them."""

import tempfile
from pathlib import Path

from quatrain.errors import InvalidInput


def ready_folder(folder: Path, setting: str) -> Path:
    """Return the folder, made and writable. Raises InvalidInput that names the setting it comes from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInput(
            f"folder {folder} cannot be written to: {error.strerror}; look at its owner and its mount, or name another "
            f"with {setting}",
            reason="INVALID_CONFIGURATION",
        ) from error
    return folder


def temporary_folder() -> Path:
    """Return the folder of temporary files. Raises InvalidInput when none of the usual folders can be written to."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise InvalidInput(
            "no folder for temporary files can be written to, /tmp included: name one with the environment variable "
            "TMPDIR",
            reason="INVALID_CONFIGURATION",
        ) from error
