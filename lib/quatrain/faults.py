"""Named points in the code where tests make the process die, stop, wait or fail.

Off, `fault_point` is an empty function. It is on in a process that starts with QUATRAIN_FAULTS=FOLDER:

- every hit is a line `PROCESS PID POINT` in FOLDER/hits, PROCESS being QUATRAIN_FAULTS_PROCESS;
- FOLDER/plan.json `{"point", "action", "hit", "seconds"}` says what happens at the hit-th hit (from 1, counted in this
  process from the moment that it has read the plan). It happens once: the process that acts renames the plan to
  FOLDER/fired.json first (adding process, pid and time), so that neither its successor nor a sibling acts again.

Actions: `kill` (SIGKILL), `stop` (SIGSTOP; the test has to send SIGCONT), `delay` (sleeps, and the event loop with
it), `fail` (Unavailable is raised).
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from quatrain.errors import InvalidInput, Unavailable

POINTS: Mapping[str, str] = {
    "submit.before_active": "A job is checked and pinned; nothing says that it exists.",
    "submit.after_active": "The job is in the index of unfinished jobs, its spec.json is not written.",
    "submit.after_spec": "The job exists; the caller has no answer yet.",
    "joblog.before_event": "An event is about to be written.",
    "joblog.after_event": "An event is in the log; its writer has not acted on that.",
    "owner.before_take": "A job was found free; its next epoch is not taken.",
    "owner.after_take": "The epoch is taken; nothing was done with it.",
    "owner.before_open": "An attempt is in the log; no learner was asked.",
    "owner.after_open": "The learner has opened the stage; its owner has not used it.",
    "owner.after_enqueue": "The tasks of a batch are in the queue.",
    "owner.after_collect": "All results of a step are here; the batch object is not written.",
    "owner.after_batch": "The batch object is written; no event names it.",
    "owner.after_seal": "The step is sealed; the learner has not been told.",
    "owner.after_train": "The learner has trained the step; its policy is not published.",
    "owner.after_publish": "The policy version is published; no event completes the step.",
    "owner.after_step": "The step is completed in the log; Redis still holds its results.",
    "owner.after_save": "The checkpoint is written; no event names it.",
    "owner.after_checkpoint": "The checkpoint is in the log.",
    "owner.after_evaluation": "The evaluation's object is written; no event names it.",
    "owner.after_evaluated": "The evaluation is in the log; Redis still holds its results.",
    "owner.after_offset": "The reward model's offset is measured; no event tells it.",
    "owner.after_export": "The stage's model is written; no event names it.",
    "owner.after_stage": "The stage is completed in the log.",
    "owner.before_finish": "All stages are done; the terminal event is not written.",
    "owner.after_finish": "The terminal event is in the log; learner and Redis still know the job.",
    "owner.after_clean": "Redis has forgotten the job; the index of unfinished jobs still names it.",
    "owner.before_paused": "The learner is given up for a pause; the job does not count as paused.",
    "owner.after_paused": "The job is paused in the log; its owner still holds it.",
    "retention.after_release": "What a checkpoint has made needless is released in the log; its data are there.",
    "retention.between_deletes": "An object of released data is deleted, others are not.",
    "retention.before_done": "Released data are deleted; the index of jobs to clean still names the job.",
    "fork.before_copy": "A fork is checked; nothing of it is written.",
    "fork.between_files": "A file of its checkpoint is copied for a fork, others are not.",
    "fork.before_manifest": "All files are copied for a fork; their manifest is not.",
    "fork.after_copy": "The checkpoint is copied whole; nothing says that the fork exists.",
    "delete.before_event": "The index of jobs to clean names the job; no event gives anything up.",
    "delete.after_event": "A job or a checkpoint is given up in the log; the caller has no answer.",
    "upload.between_chunks": "A piece of an uploaded file has arrived, others have not.",
    "upload.before_store": "An uploaded file has arrived and is checked; it is not stored.",
    "upload.after_store": "An uploaded file is stored; the caller has no answer.",
    "import.before_name": "An imported model is stored; its name does not lead to it.",
    "import.after_name": "The name of an imported model leads to it; the caller has no answer.",
    "rollout.after_lease": "A worker has leased a task; nothing is generated.",
    "rollout.before_complete": "The samples are made and scored; they are not handed over.",
    "rollout.after_objects": "Results too large for the queue are stored; no entry of it names them.",
    "rollout.after_complete": "The results are added and the task is acknowledged and deleted.",
    "generation.before": "A call to generate has arrived.",
    "generation.after": "The completions are sampled; the caller has no answer.",
    "reward.before": "A call to score has arrived.",
    "reward.after": "The samples are scored; the caller has no answer.",
    "reference.before": "A call for reference logprobs has arrived.",
    "reference.after": "The logprobs are computed; the caller has no answer.",
    "learner.after_load": "A stage is loaded; the owner has no answer.",
    "learner.after_train": "The optimizer has stepped; nothing of the step is stored.",
    "learner.before_reply": "The step and its per-token results are stored; the owner has no answer.",
    "learner.after_publish": "A policy version is stored; the owner has no answer.",
    "learner.after_save": "A checkpoint is stored; the owner has no answer.",
    "learner.after_export": "The stage's model is stored; the owner has no answer.",
    "folder.between_files": "A file of a folder is uploaded, others are not.",
    "folder.before_manifest": "All files of a folder are uploaded; its manifest is not.",
}


@dataclass(frozen=True)
class FaultPlan:
    """The content of plan.json: at which hit of which point something happens (`seconds`: of a delay)."""

    point: str
    action: str
    hit: int = 1
    seconds: float = 0.0


class Faults:
    """The implementation of `fault_point` when it is on. Thread-safe."""

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._process = process
        self._lock = threading.Lock()
        self._read: tuple[int, int] | None = None
        self._plan: FaultPlan | None = None
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._hits = os.open(folder / "hits", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def hit(self, point: str) -> None:
        """Count the hit and do what is planned for it. Raises InvalidInput for a point that POINTS lacks."""
        if point not in POINTS:
            raise InvalidInput(f"there is no fault point {point!r}; add it to POINTS in quatrain.faults")
        with self._lock:
            os.write(self._hits, f"{self._process} {os.getpid()} {point}\n".encode())
            due = self._due(point)
        if due is not None:
            self._act(due)

    def _due(self, point: str) -> FaultPlan | None:
        """Return the plan for the one hit that it means, and use it up."""
        path = self._folder / "plan.json"
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._read:
                self._plan, self._count, self._read = FaultPlan(**json.loads(path.read_bytes())), 0, version
        except FileNotFoundError:
            return None
        if self._plan is None or self._plan.point != point:
            return None
        self._count += 1
        if self._count != self._plan.hit:
            return None
        note = path.with_name(f".fired-{os.getpid()}")
        note.write_text(
            json.dumps({**asdict(self._plan), "process": self._process, "pid": os.getpid(), "time": time.time()})
        )
        try:
            path.unlink()
        except FileNotFoundError:  # A sibling was faster.
            note.unlink()
            return None
        note.replace(path.with_name("fired.json"))
        return self._plan

    def _act(self, plan: FaultPlan) -> None:
        if plan.action in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if plan.action == "kill" else signal.SIGSTOP)
        elif plan.action == "delay":
            time.sleep(plan.seconds)
        elif plan.action == "fail":
            raise Unavailable(f"fault point {plan.point} was told to fail")
        else:
            raise InvalidInput(f"a fault plan has the unknown action {plan.action!r}")


def _nothing(point: str) -> None:
    """Do nothing: the implementation of `fault_point` when it is off."""


def _switch(environment: Mapping[str, str]) -> Callable[[str], None]:
    folder = environment.get("QUATRAIN_FAULTS")
    if not folder:
        return _nothing
    return Faults(Path(folder), environment.get("QUATRAIN_FAULTS_PROCESS", "process")).hit


fault_point: Callable[[str], None] = _switch(os.environ)
"""`fault_point(NAME)` marks a point, as the module says. NAME is one of POINTS."""
