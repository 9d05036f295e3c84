"""The commands of docs/deploy.md, read from the page and run as they are written there.

`REPLACED` lists the commands that cannot run here and what runs instead; nothing else differs.
"""

import sys
from dataclasses import replace
from pathlib import Path

from tests.cluster.api import Cluster
from tests.cluster.programs import HELM, KUBECTL, built
from tests.unit.docs.pages import code_blocks, section

DEPLOY_PAGE = "docs/deploy.md"
ROOT = Path(__file__).parents[2]
DEADLINE = 1200.0
# Part of the page, and what runs instead. The node has the images already, under the names that loading would give.
REPLACED = {
    "make images    ": "true    ",
    "make images COMPUTE=cuda": "true",
    "kind create cluster --name quatrain": "true",
    "kind load docker-image --name quatrain quatrain/$image:0.1.0": "true",
}
RUN, RENDERED = "run on a node", "rendered"
# How the commands of each section are checked.
CHECKED = {
    "A laptop's cluster (kind)": RUN,
    "Nodes with GPUs": RENDERED,
    "Certificates": RUN,
    "Upgrade": RUN,
    "Backup": RUN,
    "Restore": RUN,
}


def script(heading: str) -> str:
    """Return the commands of a section as a script for bash, which ends what they left in the background."""
    text = "\n".join(code_blocks(section(DEPLOY_PAGE, heading), "sh"))
    assert text, f"{DEPLOY_PAGE} has no commands under {heading!r}"
    for old, new in REPLACED.items():
        text = text.replace(old, new)
    return f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{text}"


def run_section(cluster: Cluster, namespace: str, heading: str, folder: Path) -> str:
    """Run the commands of a section in a folder that looks like the checkout; kubectl and helm use the namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("helm", "examples", "docs"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(ROOT / name)
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, program in {"kubectl": KUBECTL, "helm": HELM}.items():
        if not (programs / name).is_symlink():
            (programs / name).symlink_to(built(program))
    kubeconfig = folder / "kubeconfig"
    kubeconfig.touch(0o600)
    kubeconfig.write_bytes(cluster.kubeconfig.read_bytes())
    path = f"{programs}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    here = replace(cluster, kubeconfig=kubeconfig, environment={"PATH": path, "QUATRAIN_HOME": str(folder / "home")})
    here.kubectl("config", "set-context", "--current", f"--namespace={namespace}")
    done = here.run("bash", "-c", f"cd {folder}\n{script(heading)}", deadline=DEADLINE)
    assert done.code == 0, f"{DEPLOY_PAGE}, {heading}: {done.code}\n{done.output[-3000:]}{done.errors[-3000:]}"
    return done.output
