"""Container images of one layer, made from files without any build tool, as archives that container runtimes import."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_image(archive: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str], user: str) -> Path:
    """An image `name` that holds executable `files` by their path inside."""
    layer = _tar({path.lstrip("/"): source.read_bytes() for path, source in files.items()}, mode=0o755)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    contents = {config_name: config, f"{digest}.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    archive.write_bytes(_tar(contents, mode=0o644))
    return archive


def _tar(contents: Mapping[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
