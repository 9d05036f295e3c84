"""The request of a stage as JSON, for the other ranks of the learner."""

from dataclasses import asdict
from typing import Any

from quatrain.learner.requests import OpenRequest, Token
from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import stage_named


def to_document(request: OpenRequest) -> dict[str, Any]:
    """A JSON object; a stage goes by its name."""
    return {**asdict(request), "stage": request.stage.name}


def from_document(document: dict[str, Any]) -> OpenRequest:
    """The request that `to_document` was given."""

    def folder(name: str) -> ModelRef | None:
        return None if document[name] is None else ModelRef.from_json(document[name])

    def source(name: str) -> ObjectRef | None:
        return None if document[name] is None else ObjectRef.from_json(document[name])

    known = {
        "token": Token(**document["token"]),
        "stage": stage_named(document["stage"]),
        **{name: folder(name) for name in ("model", "value_model", "tokenizer")},
        **{name: source(name) for name in ("data", "held_out", "checkpoint")},
    }
    return OpenRequest(**{**document, **known})
