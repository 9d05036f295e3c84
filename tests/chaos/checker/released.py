"""What retention has given up, as events say; and whether it was allowed to."""

from collections.abc import Iterator

from tests.chaos.checker.history import Event, History

MANIFEST = "/manifest.json"
RETENTION = "retention"


def manifest_key(uri: str) -> str:
    """Key of a model's manifest; empty for what is not in the store."""
    scheme, _, rest = uri.partition(":")
    return {"store": f"{rest}{MANIFEST}", "sha256": f"models/{rest}{MANIFEST}"}.get(scheme, "")


class Released:
    """What the log named and may be gone: only ever the job's own, and only after an event."""

    def __init__(self, history: History) -> None:
        versions = released_versions(history)
        models = (event.data.get("model") or event.data.get("policy") for event in history.events)
        self._own = f"jobs/{history.job}/"
        self._all = history.last("job_deleted") is not None
        self._keys = {event.data["key"] for event in history.of("checkpoint_released")}
        self._keys |= {
            manifest_key(model["uri"]) for model in models if model and model.get("policy_version") in versions
        }

    def covers(self, key: str) -> bool:
        """Whether the object (or the folder with this manifest) need not be there."""
        return key.startswith(self._own) and (self._all or key in self._keys)


def released_versions(history: History) -> dict[int, int]:
    """Policy versions that were given up, with the revision of the event that did."""
    return {version: event.revision for event in history.of("policies_released") for version in event.data["versions"]}


def too_early(history: History) -> Iterator[str]:
    """What was given up while something still needed it."""
    versions = released_versions(history)
    for event in history.of("batch_sealed", "evaluated"):
        version = event.data.get("policy_version", event.data["step"])
        if versions.get(version, event.revision) < event.revision:
            yield f"{event} used policy version {version}, which had been released"
    yield from _checkpoints_too_early(history)


def _checkpoints_too_early(history: History) -> Iterator[str]:
    pinned: set[str] = set()
    kept: dict[str, dict[str, int]] = {}
    done: set[str] = set()
    for event in history.of(
        "forked", "checkpoint", "checkpoint_pinned", "checkpoint_released", "policies_released", "stage_completed"
    ):
        ref = event.data["checkpoint"] if event.type == "forked" else event.data
        key, stage = str(ref.get("key")), event.data.get("stage", "ppo")
        mine = kept.setdefault(stage, {})
        if event.type == "policies_released":
            for version in sorted(set(event.data["versions"]) & set(mine.values())):
                yield f"{event} gives up version {version}, whose checkpoint is kept"
        elif event.type == "stage_completed":
            done.add(stage)
        elif event.type in ("forked", "checkpoint"):
            mine[key] = event.data["step"]
        elif event.type == "checkpoint_pinned":
            (pinned.add if event.data["pinned"] else pinned.discard)(key)
        elif key not in mine:
            yield f"{event} gives up {key}, which is no kept checkpoint"
        else:
            if event.data.get("reason") == RETENTION:
                reasons = _kept_by_rule(history, event, mine, pinned)
                yield from (f"{event} gives up {key}, {reason}" for reason in reasons)
            del mine[key]
            pinned.discard(key)
            running = history.end is None or event.revision < history.end.revision
            if not mine and stage not in done and running:
                yield f"{event} gives up the last checkpoint of {stage}, which is not done"


def _kept_by_rule(history: History, event: Event, kept: dict[str, int], pinned: set[str]) -> Iterator[str]:
    """Why retention had to keep the checkpoint that it released."""
    rule, key = history.spec["spec"]["checkpoint"], event.data["key"]
    if key in pinned:
        yield "which is pinned"
    last, every, metric = rule.get("keep_last"), rule.get("keep_every"), rule.get("keep_best")
    if last and kept[key] in sorted(kept.values())[-last:]:
        yield f"one of the newest {last}"
    if every and kept[key] % every == 0:
        yield f"of a step that keep_every {every} keeps"
    if metric and kept[key] == _best(history, event, set(kept.values()), metric):
        yield f"the best by {metric}"


def _best(history: History, release: Event, steps: set[int], metric: str) -> int | None:
    """The step with the highest value, with a minus before the name the lowest; of equal ones the first."""
    sign, name = (-1.0, metric[1:]) if metric.startswith("-") else (1.0, metric)
    values: dict[int, float] = {}
    for event in history.of("step_completed", "evaluated"):
        if event.revision < release.revision and event.data.get("stage", "ppo") == release.data["stage"]:
            value = event.data["metrics"].get(name)
            if value is not None and event.data["step"] in steps:
                values[event.data["step"]] = sign * value
    return max(values, key=lambda step: (values[step], -step), default=None)
