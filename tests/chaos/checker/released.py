"""What retention has released, as events say: it need not be there any more."""

from tests.chaos.checker.history import History


def is_released(history: History, key: str, revision: int) -> bool:
    """Whether what the event at `revision` (0: the spec) named under `key` may be gone."""
    del key, revision
    return history.last("job_deleted") is not None
