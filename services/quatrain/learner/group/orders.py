"""The plan of a stage as JSON, for the other ranks of the learner."""

from dataclasses import asdict
from typing import Any

from quatrain.learner.plans import FolderRef, ObjectAt, OpenPlan, Stage, Token


def to_document(plan: OpenPlan) -> dict[str, Any]:
    """A JSON object."""
    return asdict(plan)


def from_document(document: dict[str, Any]) -> OpenPlan:
    """The plan that `to_document` was given."""

    def folder(name: str) -> FolderRef | None:
        return None if document[name] is None else FolderRef(**document[name])

    def source(name: str) -> ObjectAt | None:
        return None if document[name] is None else ObjectAt(**document[name])

    known = {
        "token": Token(**document["token"]),
        "stage": Stage(document["stage"]),
        **{name: folder(name) for name in ("model", "value_model", "tokenizer")},
        **{name: source(name) for name in ("data", "held_out", "checkpoint")},
    }
    return OpenPlan(**{**document, **known})
