"""Builds the images: `python docker/build.py [NAME ...]` (`make images`). An image whose inputs are unchanged stays.

BASE_IMAGE names the base of all of them; `debootstrap` makes one of Debian's packages, without a registry. COMPUTE=cuda
brings torch's CUDA libraries. Settings of pip and Go, and the authorities of a proxy, go in as build secrets.
`--tag` keeps them apart from those of the version. `--sizes FILE` writes the sizes as JSON.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_BASE = "python:3.11-slim-bookworm"
DEBIAN = "localhost/quatrain/debian:12"
SOURCES = ("pyproject.toml", "lib", "services", "orchestrator")


@dataclass(frozen=True)
class Image:
    """An image, the one that it builds on, and the paths of its further inputs beside its Dockerfile."""

    name: str
    base: str
    paths: tuple[str, ...]


IMAGES = (
    Image("build", "", ("docker/install", "docker/without_cuda.py", "constraints.txt")),
    Image("base", "", ("docker/install", "constraints.txt")),
    Image("torch", "base", ("docker/without_cuda.py",)),
    Image("orchestrator", "base", SOURCES),
    Image("generation", "torch", SOURCES),
    Image("reward", "torch", SOURCES),
    Image("reference", "torch", SOURCES),
    Image("learner", "torch", SOURCES),
    Image("valkey", "base", ("docker/valkey-cli",)),
    Image("minio", "base", ()),
)
NAMED = {image.name: image for image in IMAGES}


@dataclass(frozen=True)
class Built:
    """An image as the engine reports it: its bytes when unpacked, and its labels."""

    size: int
    labels: Mapping[str, str]


class Builder:
    """A builder of the images, with docker or podman."""

    def __init__(self, engine: str, base_image: str, compute: str, secrets: Sequence[str], tag: str = "") -> None:
        self.engine = engine
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self.version = str(project["version"])
        self._dependencies: list[str] = project["dependencies"]
        self._tag = tag or self.version
        self._base_image = base_image
        self._compute = compute
        self._secrets = secrets
        self._revision = _output("git", "-C", str(ROOT), "rev-parse", "HEAD").strip()

    def tag(self, name: str) -> str:
        """Return the name of the image with its tag."""
        return f"quatrain/{name}:{self._tag}"

    def build(self, image: Image) -> None:
        """Build the image and those that it needs, unless they are there with the same inputs."""
        for needed in dict.fromkeys((image.base, "" if image.name == "build" else "build")):
            if needed:
                self.build(NAMED[needed])
        inputs = self.inputs(image)
        if inputs == self._label(image, "quatrain.inputs"):
            return
        began = time.monotonic()
        arguments = {
            "BASE_IMAGE": self.local(image.base) if image.base else self._base_image,
            "BUILD_IMAGE": self.local("build"),
            "VERSION": self.version,
            "REVISION": self._revision,
            "INPUTS": inputs,
        }
        if image.name == "torch":
            arguments |= {"COMPUTE": self._compute, "TORCH_INDEX_URL": os.environ.get("TORCH_INDEX_URL", "")}
        flags = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        # Layers of earlier builds are not reused: not every engine counts bind-mounted files as their input.
        if self.engine == "podman":
            isolation = os.environ.get("BUILDAH_ISOLATION", "chroot")
            flags += ["--format", "docker", "--layers=false", "--isolation", isolation]
        file = str(ROOT / "docker" / f"{image.name}.Dockerfile")
        command = [self.engine, "build", "--quiet", "--no-cache", *flags, *self._secrets, "-t", self.tag(image.name)]
        subprocess.run([*command, "-f", file, str(ROOT)], check=True, stdout=subprocess.DEVNULL)
        print(f"{self.tag(image.name)} built in {time.monotonic() - began:.0f} s", flush=True)

    def local(self, name: str) -> str:
        """Return the name of one of our images, so that podman asks no registry for it."""
        return f"localhost/{self.tag(name)}" if self.engine == "podman" else self.tag(name)

    def inputs(self, image: Image) -> str:
        """Return the digest of everything that goes into the image."""
        digest = hashlib.sha256()
        if image.base:
            digest.update(self.inputs(NAMED[image.base]).encode())
        else:
            digest.update(f"{self._base_image} {self._dependencies}".encode())
        if image.name == "torch":
            digest.update(f"{self._compute} {os.environ.get('TORCH_INDEX_URL', '')}".encode())
        for path in _files(f"docker/{image.name}.Dockerfile", *image.paths):
            digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()

    def sizes(self) -> dict[str, dict[str, int]]:
        """Return the unpacked bytes of every image that is there: all of them, and what it adds to the one below it."""
        totals = {image.name: found.size for image in IMAGES if (found := self._inspect(self.tag(image.name)))}
        return {
            self.tag(name): {"bytes": total, "own_bytes": total - totals.get(NAMED[name].base, 0)}
            for name, total in totals.items()
        }

    def _label(self, image: Image, label: str) -> str:
        found = self._inspect(self.tag(image.name))
        return found.labels.get(label, "") if found else ""

    def _inspect(self, name: str) -> Built | None:
        done = subprocess.run([self.engine, "image", "inspect", name], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return None
        found = json.loads(done.stdout)[0]
        return Built(int(found["Size"]), found.get("Config", {}).get("Labels") or {})


def main() -> int:
    """Build what is asked for and return 0."""
    parser = argparse.ArgumentParser(description="Builds Quatrain's images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMED)}; all by default")
    parser.add_argument("--tag", default="", help="of the images; by default the version")
    parser.add_argument("--sizes", type=Path, help="write the sizes to this file")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMED))
    if unknown:
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(NAMED)}")
    engine = os.environ.get("ENGINE") or next((each for each in ("docker", "podman") if _answers(each)), None)
    if engine is None:
        parser.error("images are built with docker or podman, and neither answers here")
    base_image = os.environ.get("BASE_IMAGE") or DEFAULT_BASE
    if base_image == "debootstrap":
        base_image = DEBIAN
        if subprocess.run([engine, "image", "inspect", DEBIAN], capture_output=True, check=False).returncode:
            subprocess.run([str(ROOT / "docker" / "debian-base"), engine, DEBIAN], check=True)
    with _secret_flags(os.environ) as secrets:
        builder = Builder(engine, base_image, os.environ.get("COMPUTE") or "cpu", secrets, options.tag)
        for name in options.names or NAMED:
            builder.build(NAMED[name])
    sizes = json.dumps(builder.sizes(), indent=2)
    if options.sizes:
        options.sizes.write_text(sizes + "\n", encoding="utf-8")
    print(sizes)
    return 0


@contextmanager
def _secret_flags(environment: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield flags that mount this machine's settings of pip and Go for the build; nothing of them stays in an image."""
    authorities = environment.get("PIP_CERT") or environment.get("SSL_CERT_FILE")
    settings = {
        "index-url": environment.get("PIP_INDEX_URL"),
        "extra-index-url": environment.get("PIP_EXTRA_INDEX_URL"),
        "cert": "/run/secrets/ca" if authorities else None,
    }
    contents = {
        "pip": "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in settings.items() if value)]),
        "ca": Path(authorities).read_text(encoding="utf-8") if authorities else "",
        "goproxy": environment.get("GOPROXY", ""),
    }
    with tempfile.TemporaryDirectory() as folder:
        flags = []
        for name, content in contents.items():
            path = Path(folder) / name
            path.write_text(content, encoding="utf-8")
            flags += ["--secret", f"id={name},src={path}"]
        yield flags


def _answers(engine: str) -> bool:
    """Return whether the program is there and works: docker needs its daemon."""
    if not shutil.which(engine):
        return False
    return subprocess.run([engine, "version"], capture_output=True, check=False).returncode == 0


def _files(*paths: str) -> list[Path]:
    """Return the files among the paths, and those below the folders among them."""
    found = [each for name in paths for each in ((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])]
    return sorted(each for each in found if each.is_file() and "__pycache__" not in each.parts)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
