"""Makes PyPI's torch for Linux, which is linked with CUDA, run where none of NVIDIA's libraries are installed.

Runs while `quatrain/torch` is built for CPUs, only where PyTorch's own index of CPU wheels (build argument
TORCH_INDEX_URL) was not given. The libraries that torch asks for are replaced by ones of the same names, a few KB each,
in which every function answers "no CUDA device"; `torch.cuda.is_available()` is False then, and torch computes on the
CPU with its own libraries, which are not changed. NVIDIA's packages are removed from torch's list of requirements.

    python without_cuda.py SITE_PACKAGES        needs binutils; x86-64 only
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

VENDOR = re.compile(r"lib(cu|nv|nccl)\w*\.so\.\d+")
# How the libraries begin that mark no versions on their symbols, or others than their own names.
PREFIXES = {"libnccl": "nccl", "libcusparseLt": "cusparseLt", "libcufile": "cuFile", "libnvshmem_host": "nvshmem"}
REQUIREMENT = re.compile(r"Requires-Dist: (nvidia-|cuda-|triton)")
NO_DEVICE = 100
"""cudaErrorNoDevice; for the other libraries it is some error."""
TEXTS = ("cudaGetErrorString", "cudaGetErrorName")
"""The functions that return a text instead of a number."""


def main() -> None:
    """Replace the libraries and return 0."""
    site = Path(sys.argv[1])
    folder = site / "torch" / "lib"
    own = sorted(folder.glob("lib*.so"))
    wanted = {name for library in own for name in needed(library) if VENDOR.fullmatch(name)}
    symbols = {symbol for library in own for symbol in undefined(library)}
    for soname in sorted(wanted):
        write_library(folder / soname, soname, symbols)
    for metadata in site.glob("torch-*.dist-info/METADATA"):
        lines = metadata.read_text(encoding="utf-8").splitlines(keepends=True)
        metadata.write_text("".join(line for line in lines if not REQUIREMENT.match(line)), encoding="utf-8")
    print(f"torch runs without {', '.join(sorted(wanted)) or 'CUDA as it is'}")


def needed(library: Path) -> list[str]:
    """Return the names of the libraries that this one loads."""
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-d", str(library)))


def undefined(library: Path) -> Iterable[str]:
    """Return the symbols, as NAME or NAME@VERSION, that others have to define."""
    lines = run("nm", "-D", "--undefined-only", "--with-symbol-versions", str(library)).splitlines()
    return (line.split()[-1] for line in lines)


def write_library(path: Path, soname: str, symbols: set[str]) -> None:
    """Write a library that defines those of the symbols that belong to `soname`."""
    stem = soname.partition(".")[0]
    versions: dict[str, list[str]] = {}
    for symbol in sorted(symbols):
        name, _, version = symbol.partition("@")
        if version == soname or (stem in PREFIXES and name.startswith(PREFIXES[stem])):
            versions.setdefault(version, []).append(name)
    names = [name for group in versions.values() for name in group]
    texts = [name for name in names if name in TEXTS]
    numbers = [name for name in names if name not in TEXTS]
    source = [".section .note.GNU-stack", ".text", *labels(numbers), f"mov ${NO_DEVICE}, %eax", "ret"]
    source += [*labels(texts), "lea message(%rip), %rax", "ret", ".section .rodata", "message:"]
    source += ['.asciz "this image has no CUDA"', ""]
    # Symbols without a version need a script without names, and the two forms cannot be mixed.
    named = {version: "".join(f"{name}; " for name in group) for version, group in versions.items() if version}
    blocks = [f"{version} {{ {group}}};" for version, group in named.items()]
    with tempfile.TemporaryDirectory() as folder:
        assembler, script, module = (str(Path(folder) / name) for name in ("stub.s", "stub.map", "stub.o"))
        Path(assembler).write_text("\n".join(source), encoding="utf-8")
        Path(script).write_text("\n".join(blocks), encoding="utf-8")
        run("as", "-o", module, assembler)
        versioned = ["--version-script", script] if blocks else []
        run("ld", "-shared", "-z", "noexecstack", "-soname", soname, *versioned, "-o", str(path), module)


def labels(names: Iterable[str]) -> list[str]:
    """Return global names for the code that follows."""
    return [line for name in names for line in (f".globl {name}", f".type {name}, @function", f"{name}:")]


def run(*command: str) -> str:
    """Return the output of a program that must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
