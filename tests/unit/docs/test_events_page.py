import ast
from collections.abc import Iterator

from tests.unit.docs.pages import ROOT, code_in, rows, text_of

from quatrain.joblog import Event, folding
from quatrain.joblog.folding import check_event

WRITERS = ROOT / "orchestrator" / "quatrain" / "orchestrator"


def documented() -> dict[str, set[str]]:
    return {row[0].strip("`"): set(code_in(row[1])) for row in rows(text_of("docs/events.md"))}


def written() -> Iterator[tuple[str, set[str]]]:
    """Type and literal data fields of every event that the orchestrator writes."""
    for path in sorted(WRITERS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            kind = given.get("type", node.args[0] if node.args else None)
            data = given.get("data", node.args[1] if len(node.args) > 1 else None)
            if not (isinstance(kind, ast.Constant) and isinstance(data, ast.Dict)):
                continue
            keys = {key.value for key in data.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            if isinstance(kind.value, str) and kind.value in folding._HANDLERS:
                yield kind.value, keys


def test_all_types_of_the_log_are_documented_and_no_others() -> None:
    assert set(documented()) == set(folding._HANDLERS)


def test_documented_fields_are_enough_to_fold_every_event() -> None:
    for kind, fields in documented().items():
        data: dict[str, object] = dict.fromkeys(fields, 1)
        data |= {name: {"score": 1.0} for name in ("metrics",) if name in fields}
        data |= {name: None for name in ("tokens", "policy", "error") if name in fields}
        data |= {name: {"uri": "u", "digest": "d"} for name in ("model",) if name in fields}
        data |= {name: {} for name in ("checkpoint", "stage_results") if name in fields}
        data |= {name: [1] for name in ("versions",) if name in fields}

        check_event(Event(type=kind, data=data, actor="docs"))


def test_fields_that_the_orchestrator_writes_are_documented() -> None:
    found = list(written())

    assert {"owner_taken", "step_completed", "job_finished", "condition"} <= {kind for kind, _ in found}
    for kind, keys in found:
        assert keys <= documented()[kind], kind
