"""Many seeded runs on a few stacks side by side; every run is one JSON line, so a campaign can go on where it ended."""

import itertools
import json
import queue
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.api import GivenUp
from tests.chaos.cases import PAIRS, Case, case_of
from tests.chaos.coverage import missing
from tests.chaos.deployment import Deployment, deployed
from tests.chaos.runs import Run, run_case

RESULTS = Path(__file__).parent / "results" / "campaign.jsonl"
BLOCK = 120
"""Seeds that are sorted by flavour of stack before they are run."""
STILL_SECONDS = 3.0
STILL_TICK = 0.2
CHUNK = 20
"""Runs on one stack before it makes place for another."""


@dataclass(frozen=True)
class Chunk:
    """Runs on one stack."""

    flavour: str
    cases: Sequence[tuple[int, Case]]


class Stillness:
    """Counts how often this process did not run for STILL_SECONDS: somebody has frozen the machine, or it is far too
    busy. What was measured meanwhile means nothing."""

    def __init__(self) -> None:
        self.count = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(STILL_TICK)
            now = time.monotonic()
            self.count += now - before > STILL_SECONDS
            before = now


@dataclass
class Campaign:
    """Runs cases and writes what became of them. `results` None: nothing is written, everything is told."""

    home: Path
    results: Path | None
    until: float = float("inf")
    """Monotonic time after which no run begins."""
    failures: list[str] = field(default_factory=list)
    runs: int = 0
    _begun: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _stillness: Stillness = field(default_factory=lambda: Stillness())
    _give_up: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _commit: str = field(default_factory=lambda: commit())

    def stop(self, *_: object) -> None:
        """No run begins any more, and those that have begun are given up and written nowhere; for signals."""
        print("ends, giving up the runs that have begun", flush=True)
        self.until = 0.0
        self._give_up.set()

    def run(self, chunks: Sequence[Chunk], stacks: int) -> None:
        """All chunks, on so many stacks at once."""
        waiting: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        for chunk in chunks:
            waiting.put(chunk)
        workers = [threading.Thread(target=self._work, args=(waiting,)) for _ in range(stacks)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self, waiting: "queue.SimpleQueue[Chunk]") -> None:
        while time.monotonic() < self.until:
            try:
                chunk = waiting.get_nowait()
            except queue.Empty:
                return
            self._run_chunk(chunk)

    def _run_chunk(self, chunk: Chunk) -> None:
        left = list(chunk.cases)
        while left and time.monotonic() < self.until:
            home = self.home / f"{chunk.flavour}-{next(self._begun)}"
            whole = True
            with ExitStack() as stack:
                stack.enter_context(suppress(GivenUp))
                deployment = stack.enter_context(deployed(home, chunk.flavour))
                deployment.api.give_up = self._give_up
                while left and whole and time.monotonic() < self.until:
                    seed, case = left.pop(0)
                    stood_still = self._stillness.count
                    run = self._try(deployment, case, job_id(seed, next(self._begun)))
                    whole = run.result != "violated"
                    time.sleep(0.0 if whole else 2 * STILL_TICK)  # The watch may not have noticed yet.
                    if self._stillness.count > stood_still:
                        print(f"{case.name}: the machine stood still meanwhile, once more", flush=True)
                        left.append((seed, case))
                        continue
                    self._write(seed, run)
                    if not whole:
                        shutil.copytree(deployment.stack.layout.logs, home / "failed", dirs_exist_ok=True)
            if whole:
                shutil.rmtree(home, ignore_errors=True)

    def _try(self, deployment: Deployment, case: Case, job: str) -> Run:
        try:
            return _with_unknown_pairs(deployment, run_case(deployment, case, job))
        except GivenUp:
            raise
        except Exception as error:  # noqa: BLE001 - a driver that breaks is a result, too, and the campaign goes on
            text = "".join(traceback.format_exception(error))[-4000:]
            return Run(case, "violated", "", 0.0, 0.0, None, 0, "", [f"the driver broke: {text}"])

    def _write(self, seed: int, run: Run) -> None:
        document: dict[str, Any] = {
            "seed": seed,
            "commit": self._commit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **asdict(run.case),
            "target": run.target,
            "result": run.result,
            "seconds": run.seconds,
            "unbroken_seconds": run.unbroken_seconds,
            "recovery": run.recovery,
            "events": run.events,
            "state": run.state,
            "violations": [text.replace(str(self.home), "HOME")[:600] for text in run.violations],
        }
        with self._lock:
            self.runs += 1
            if self.results is not None:
                self.results.parent.mkdir(parents=True, exist_ok=True)
                with self.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(document) + "\n")
            recovery = "" if run.recovery is None else f", recovered after {run.recovery:.1f} s"
            print(f"seed {seed}: {run.case.name}: {run.result} ({run.seconds:.1f} s{recovery})", flush=True)
            if run.result == "violated":
                lines = "\n  ".join(run.violations)
                again = f"make chaos SEED={seed}" if seed else f"python -m tests.chaos --case '{run.case.name}'"
                self.failures.append(f"{run.case.name}\n  {lines}\n  again: {again}")
                print(self.failures[-1], flush=True)


def chunks_of(cases: Sequence[tuple[int, Case]]) -> Iterator[Chunk]:
    """The cases by flavour of stack, in pieces, one of each flavour after the other; slow flavours first."""
    flavours = ("torch", "s3", "links", "large", "fake")
    chosen = {flavour: [(seed, case) for seed, case in cases if case.flavour == flavour] for flavour in flavours}
    for start in range(0, len(cases), CHUNK):
        for flavour in flavours:
            if piece := chosen[flavour][start : start + CHUNK]:
                yield Chunk(flavour, piece)


def job_id(seed: int, number: int) -> str:
    """Of the job of a run; cases without a seed, or that are run again, need one, too."""
    return f"chaos-{seed}-{number}"


def seeds_done(results: Path) -> set[int]:
    """Seeds that have a result already."""
    return {int(row["seed"]) for row in read_rows(results)}


def read_rows(results: Path) -> list[dict[str, Any]]:
    """The runs of a campaign so far."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def missing_cases(results: Path, classes: str, only: str = "") -> list[tuple[int, Case]]:
    """What the campaign lacks, without seeds: a case is repeated by its name."""
    wanted = (case for case in missing(read_rows(results)) if not classes or case.fault in classes)
    return [(0, case) for case in wanted if only in case.name]


def next_cases(results: Path, count: int, classes: str) -> list[tuple[int, Case]]:
    """The next seeds without a result and their cases, of the wanted classes only."""
    done = seeds_done(results)
    found: list[tuple[int, Case]] = []
    seed = 1
    while len(found) < count:
        case = case_of(seed)
        if seed not in done and (not classes or case.fault in classes):
            found.append((seed, case))
        seed += 1
    return found


def _with_unknown_pairs(deployment: Deployment, run: Run) -> Run:
    """The run, violated if a process has reached a point of which the tables do not know that it can."""
    unknown = sorted(set(deployment.stack.hits()) - set(PAIRS))
    if not unknown:
        return run
    texts = [f"{kind} reaches {point}: add the pair to the tables" for kind, point in unknown]
    return replace(run, result="violated", violations=[*run.violations, *texts])


def commit() -> str:
    """The commit that is checked out."""
    asked = ["git", "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10.0, check=False)
    return done.stdout.strip()
