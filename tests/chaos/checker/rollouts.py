"""I1 and I2: each rollout in one batch at most; each expected one in its batch, and the sums agree."""

import math
from collections import Counter
from collections.abc import Iterator

from tests.chaos.checker.history import History, repeated
from tests.chaos.checker.objects import sha256
from tests.chaos.checker.tables import Batch, Row, canonical, read_named
from tests.chaos.checker.verdict import Case, Part

STATUSES = {"rollout": "rollouts", "skipped": "skipped", "refused": "refused"}
"""Status of a row to the sum in `batch_sealed`."""


def _nothing_sealed(case: Case) -> str:
    return "" if case.history.last("batch_sealed", "evaluated") else "no batch was sealed"


def _one_batch(case: Case) -> Iterator[str]:
    where: dict[str, Batch] = {}
    for batch in case.batches:
        ids = [row["rollout_id"] for row in batch.rows]
        for rollout in repeated(ids):
            yield f"rollout {rollout} stands twice in {batch}"
        for rollout in sorted(set(ids)):
            other = where.setdefault(rollout, batch)
            # Evaluations take the same samples each time, and nothing is trained on them.
            if other is not batch and "rollout" in (other.purpose, batch.purpose):
                yield f"rollout {rollout} stands in {other} and in {batch}"


def _one_seal(case: Case) -> Iterator[str]:
    for kind in ("batch_sealed", "evaluated"):
        for step in repeated(event.data["step"] for event in case.history.of(kind)):
            yield f"step {step} has two events {kind}"


def _trained(case: Case) -> Iterator[str]:
    """A step trains on the rollouts of its sealed batch and on nothing else: its token table has a row for each."""
    sealed = {
        batch.step: [row["rollout_id"] for row in batch.rows if row["status"] == "rollout"] for batch in case.sealed
    }
    for event in case.history.of("step_completed"):
        table = read_named(case.objects, event.data["tokens"]) if event.data.get("tokens") else None
        if table is None or event.data["step"] not in sealed:
            continue
        trained = [row["rollout_id"] for row in table]
        if trained != sealed[event.data["step"]]:
            strange = sorted(set(trained) ^ set(sealed[event.data["step"]])) or trained
            yield f"{event} trained on other rollouts than were sealed, for example {strange[0]}"


def _expected(case: Case) -> Iterator[str]:
    for batch in case.batches:
        for text in _missing(batch, case.history):
            yield f"{batch}: {text}"
        for row in batch.rows:
            for text in _identity(batch, row, case.history):
                yield f"{batch}: rollout {row['rollout_id']} {text}"


def _missing(batch: Batch, history: History) -> Iterator[str]:
    pairs = [(row["prompt_index"], row["sample_index"]) for row in batch.rows]
    if pairs != sorted(set(pairs)):
        yield "rows are not in (prompt, sample) order, each once"
    taken: dict[int, list[int]] = {}
    for prompt, sample in pairs:
        taken.setdefault(prompt, []).append(sample)
    for prompt, samples in taken.items():
        if sorted(samples) != list(range(len(samples))):
            yield f"samples of prompt {prompt} are {sorted(samples)}, some are missing"
    table = history.pinned["prompts" if batch.purpose == "rollout" else "eval_prompts"]
    if batch.purpose == "eval":
        wanted = int(table["rows"])
    else:
        wanted = int(history.ppo["prompts_per_step"]) * int(history.ppo["samples_per_prompt"])
    if len(pairs) != wanted:
        yield f"{len(pairs)} rows, expected are {wanted}"


def _identity(batch: Batch, row: Row, history: History) -> Iterator[str]:
    """Ids and seeds are functions of what the row stands for; an evaluation has the same ones at every step."""
    place = [row["prompt_index"], row["sample_index"]]
    stage, step = ("ppo", batch.step) if batch.purpose == "rollout" else ("eval", 0)
    if row["rollout_id"] != sha256(canonical([history.job, batch.purpose, step, *place]))[:24]:
        yield f"is not the id of step {batch.step}, prompt and sample {place}"
    seed = int(sha256(canonical([int(history.spec["spec"]["seed"]), stage, step, *place]))[:16], 16)
    if row["seed"] != seed:
        yield f"has seed {row['seed']}, expected is {seed}"


def _prompts_in_turn(case: Case) -> Iterator[str]:
    """Over the steps from the first on, no prompt is taken a second time more often than another one."""
    history = case.history
    rows, samples = int(history.pinned["prompts"]["rows"]), int(history.ppo["samples_per_prompt"])
    uses: Counter[int] = Counter()
    batches = {batch.step: batch for batch in case.sealed}
    for step in range(1, len(batches) + 1):
        if step not in batches:
            return
        uses.update(row["prompt_index"] for row in batches[step].rows)
        least = step * int(history.ppo["prompts_per_step"]) // rows
        wrong = [p for p in range(rows) if not least * samples <= uses[p] <= (least + 1) * samples]
        if wrong or not all(0 <= prompt < rows for prompt in uses):
            yield f"up to step {step} prompt {(wrong or [max(uses)])[0]} was not taken in its turn"
            return


def _whole_log(case: Case) -> str:
    if case.history.first_version:
        return "a fork goes on in its parent's order"
    return _nothing_sealed(case)


def _rows_sound(case: Case) -> Iterator[str]:
    for batch in case.batches:
        for row in batch.rows:
            for text in _row(row, batch.purpose, int(case.history.ppo["generation"]["max_new_tokens"])):
                yield f"{batch}: rollout {row['rollout_id']} {text}"


def _row(row: Row, purpose: str, longest: int) -> Iterator[str]:
    status = row["status"]
    if status not in STATUSES:
        yield f"has the status {status!r}"
    if status == "refused" and not row["reason"]:
        yield "is refused without a reason"
    if status != "rollout":
        if row["score"] is not None:
            yield f"is {status} and has a score"
        return
    length = len(row["completion_ids"])
    if not 1 <= length <= longest:
        yield f"has {length} tokens, up to {longest} are allowed"
    wanted = {"logprobs"} if purpose == "eval" else {"logprobs", "ref_logprobs"}
    for name in sorted(wanted):
        if len(row[name]) != length:
            yield f"has {len(row[name])} {name} for {length} tokens"
    if row["score"] is None or not math.isfinite(row["score"]):
        yield f"has the score {row['score']}"
    if row["finish_reason"] not in ("stop", "length"):
        yield f"has the finish reason {row['finish_reason']!r}"


def _sums(case: Case) -> Iterator[str]:
    for batch in case.sealed:
        found = Counter(row["status"] for row in batch.rows)
        for status, name in STATUSES.items():
            if batch.event.data[name] != found[status]:
                yield f"{batch} says {batch.event.data[name]} {name}, the batch has {found[status]}"


def _prompt_tokens(case: Case) -> Iterator[str]:
    pinned = case.history.pinned
    tables = {"rollout": pinned["prompts"], "eval": pinned["eval_prompts"]}
    prompts = {name: read_named(case.objects, table) for name, table in tables.items() if table is not None}
    for batch in case.batches:
        table = prompts.get(batch.purpose)
        for row in batch.rows if table else ():
            index = row["prompt_index"]
            if not table or index >= len(table) or table[index]["prompt_ids"] != row["prompt_ids"]:
                yield f"{batch}: rollout {row['rollout_id']} has other tokens than prompt {index} of the table"


PARTS = [
    Part("I1", "one batch a rollout", _nothing_sealed, _one_batch),
    Part("I1", "one seal a step", _nothing_sealed, _one_seal),
    Part("I1", "trained rollouts", _nothing_sealed, _trained),
    Part("I2", "expected rows", _nothing_sealed, _expected),
    Part("I2", "prompts in turn", _whole_log, _prompts_in_turn),
    Part("I2", "sound rows", _nothing_sealed, _rows_sound),
    Part("I2", "sums", _nothing_sealed, _sums),
    Part("I2", "prompt tokens", _nothing_sealed, _prompt_tokens),
]
