"""Persistent volumes for a cluster without a provisioner: each new claim gets a folder of the node."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.api import Cluster, Manifest

STORAGE_CLASS = "node-folder"
POLL = 1.0


@contextmanager
def volumes_on_demand(cluster: Cluster, root: Path, node: str = "") -> Iterator[None]:
    """As long as this lasts, claims get folders, and the folders of deleted claims are removed.

    Without the name of a node the volumes are for fake nodes: any node has them.
    """
    cluster.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
        }
    )
    ended = threading.Event()
    thread = threading.Thread(target=_provide, args=(cluster, root, node, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _provide(cluster: Cluster, root: Path, node: str, ended: threading.Event) -> None:
    while not ended.wait(POLL):
        for claim in json.loads(cluster.kubectl("get", "pvc", "-A", "-o", "json"))["items"]:
            if claim["status"].get("phase") == "Pending" and not claim["spec"].get("volumeName"):
                cluster.apply(_volume(claim, root, node))
        for volume in json.loads(cluster.kubectl("get", "pv", "-o", "json"))["items"]:
            if volume["status"].get("phase") == "Released":
                cluster.kubectl("delete", "pv", volume["metadata"]["name"], "--ignore-not-found")
                shutil.rmtree(root / volume["metadata"]["name"], ignore_errors=True)


def _volume(claim: Manifest, root: Path, node: str) -> Manifest:
    """A volume for one claim. Its name holds the claim's uid: a claim that comes again gets an empty folder."""
    meta, spec = claim["metadata"], claim["spec"]
    name = f"claim-{meta['uid']}"
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": spec.get("storageClassName", ""),
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"name": meta["name"], "namespace": meta["namespace"]},
            **_place(folder, node),
        },
    }


def _place(folder: Path, node: str) -> Manifest:
    if not node:
        return {"hostPath": {"path": str(folder)}}
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]
    return {"local": {"path": str(folder)}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}
