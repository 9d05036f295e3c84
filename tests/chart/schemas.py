"""JSON schemas for kubeconform: of Kubernetes from its module's own OpenAPI, of controllers from their definitions.

Strict: a field that the schema of an object does not list is refused. Nothing is downloaded but Go modules.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.programs import KUBERNETES, definition_files, module_folder

OPENAPI = "api/openapi-spec/swagger.json"
CONTROLLERS = ("keda", "prometheus", "cert-manager", "lws")
LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
Schema = dict[str, Any]


class Loader(yaml.CSafeLoader):
    """Takes a lone `=`, which is one of the operators of Prometheus, as text."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def write_schemas(folder: Path, kubernetes: str = KUBERNETES) -> str:
    """Writes a file for each kind, of one version of Kubernetes; the location that kubeconform is to be given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in (*_kubernetes(kubernetes), *_controllers()):
        (folder / f"{name}.json").write_text(json.dumps(schema))
    return f"{folder}/{LOCATION}"


def _kubernetes(version: str) -> Iterator[tuple[str, Schema]]:
    text = (module_folder(f"k8s.io/kubernetes@{version}") / OPENAPI).read_text()
    definitions = {name: _strict(schema) for name, schema in json.loads(text)["definitions"].items()}
    # A quantity is text in Kubernetes' schema, and a number or text in its parser.
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            yield _name(kind["kind"], kind["group"], kind["version"]), _with_definitions(name, definitions)


def _with_definitions(name: str, definitions: dict[str, Schema]) -> Schema:
    """The schema with the definitions that it reaches."""
    reached: dict[str, Schema] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached[current] = definitions[current]
            waiting += _references(definitions[current])
    return {"$ref": f"#/definitions/{name}", "definitions": reached}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _controllers() -> Iterator[tuple[str, Schema]]:
    for controller in CONTROLLERS:
        for file in definition_files(controller):
            for document in yaml.load_all(file.read_text(), Loader=Loader):
                if document and document["kind"] == "CustomResourceDefinition":
                    spec = document["spec"]
                    for version in spec["versions"]:
                        schema = _strict(version["schema"]["openAPIV3Schema"])
                        schema["properties"]["metadata"] = {"type": "object"}
                        yield _name(spec["names"]["kind"], spec["group"], version["name"]), schema


def _name(kind: str, group: str, version: str) -> str:
    """As kubeconform fills in LOCATION: `deployment-apps-v1`, `pod-v1`, `networkpolicy-networking-v1`."""
    return "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)


def _strict(node: Any) -> Any:
    """Closes every object that lists its fields."""
    if isinstance(node, list):
        return [_strict(child) for child in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _strict(child) for key, child in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    open_ended = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(node.get("properties"), dict) and not open_ended and "type" in node:
        closed["additionalProperties"] = False
    return closed
