"""I6, beyond one job's log: uploads are whole or absent, what was given up goes, what nobody gave up stays as it is."""

import json
from collections.abc import Iterator

from tests.chaos.checker.history import History, read_history
from tests.chaos.checker.kept import Named, read_folder, read_verified
from tests.chaos.checker.objects import Missing, Objects, sha256
from tests.chaos.checker.released import MANIFEST, Released
from tests.chaos.checker.verdict import Case, Part, always

DATA, MODELS, NAMES = "data/sha256/", "models/", "model-names/"


def _by_content(case: Case) -> Iterator[str]:
    """What is called after its content has that content; a model without a manifest is none, and nobody reads it."""
    for key in case.objects.list(DATA):
        found = sha256(case.objects.get(key))
        if key != f"{DATA}{found}":
            yield f"{key} has sha256 {found}"
    for key in case.objects.list(MODELS):
        if key.endswith(MANIFEST):
            try:
                read_folder(case.objects, Named(key, 0, key, key.split("/")[1]))
            except ValueError as error:
                yield str(error)


def _nothing_uploaded(case: Case) -> str:
    seen = case.observed
    return "" if seen.uploaded is not None or seen.named is not None else "nothing was uploaded"


def _uploads(case: Case) -> Iterator[str]:
    """What the API said to be stored is."""
    for digest in case.observed.uploaded or ():
        try:
            read_verified(case.objects, f"{DATA}{digest}", digest, None)
        except ValueError as error:
            yield str(error)
    for name, digest in (case.observed.named or {}).items():
        keys = case.objects.list(f"{NAMES}{name}/")
        found = [json.loads(case.objects.get(key))["digest"] for key in keys]
        if found != [digest]:
            yield f"models://{name} is {found or 'nothing'}, imported was {digest}"
        if not case.objects.list(f"{MODELS}{digest}{MANIFEST}"):
            yield f"models://{name} names {digest}, which is not stored"


def _not_cleaned(case: Case) -> str:
    given_up = case.history.last("job_deleted", "checkpoint_released")
    if given_up is None:
        return "nothing was given up"
    return "" if case.observed.cleanup_left is not None else "the index of jobs to clean was not looked at"


def _gone(case: Case) -> Iterator[str]:
    """Event first, data after: but after."""
    if case.observed.cleanup_left:
        yield f"cleanup/{case.job} is still there"
    for key in case.objects.list(f"jobs/{case.job}/"):
        if _is_given_up(case.history, key):
            yield f"{key} was given up and is still there"


def _is_given_up(history: History, key: str) -> bool:
    """Whether the log gives up the data at `key`. Of a deleted job spec and log stay."""
    root = f"jobs/{history.job}/"
    if history.last("job_deleted") is not None:
        return key != f"{root}spec.json" and not key.startswith((f"{root}events/", f"{root}snapshots/"))
    return Released(history).covers(f"{key.rpartition('/')[0]}{MANIFEST}")


def _nothing_kept(case: Case) -> str:
    return "" if case.observed.kept is not None else "nobody wrote down what must stay"


def _untouched(case: Case) -> Iterator[str]:
    histories: dict[str, History] = {}
    for key, digest in (case.observed.kept or {}).items():
        found = _digest(case.objects, key)
        if found == digest:
            continue
        if found == "" and key.startswith("jobs/"):
            job = key.split("/")[1]
            history = histories.setdefault(job, read_history(case.objects, job))
            if _is_given_up(history, key):
                continue
        yield f"{key} {'is gone' if not found else 'was changed'}, and nobody gave it up"


def _digest(objects: Objects, key: str) -> str:
    try:
        return sha256(objects.get(key))
    except Missing:
        return ""


PARTS = [
    Part("I6", "content", always, _by_content),
    Part("I6", "uploads", _nothing_uploaded, _uploads),
    Part("I6", "given up is gone", _not_cleaned, _gone),
    Part("I6", "others untouched", _nothing_kept, _untouched),
]
