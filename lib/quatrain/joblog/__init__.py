"""The event log of a job: the only place where anything about a job is decided.

`events` says what an event is and `view` what a job is now; `folding` makes the view of the events. `log` reads and
appends with fencing, `snapshots` makes reading a long log quick, `reading` reads a part of one, `jobs` creates and
lists jobs.
"""

from quatrain.joblog.events import Event
from quatrain.joblog.folding import apply, fold
from quatrain.joblog.jobs import create_job, list_active, list_jobs, read_spec, retire
from quatrain.joblog.log import JobLog, LogConflict
from quatrain.joblog.reading import read_events
from quatrain.joblog.view import TERMINAL_STATES, JobView

__all__ = [
    "TERMINAL_STATES",
    "Event",
    "JobLog",
    "JobView",
    "LogConflict",
    "apply",
    "create_job",
    "fold",
    "list_active",
    "list_jobs",
    "read_events",
    "read_spec",
    "retire",
]
