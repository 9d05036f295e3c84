"""Canonical JSON, sha256 and the seeds and ids that are derived from them."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON, keys sorted, no spaces: equal values give equal bytes. Raises ValueError on NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(data: bytes | str) -> Any:
    """The JSON value. Raises ValueError for whatever is none, deeper nesting than Python can hold included."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def sha256_hex(data: bytes) -> str:
    """Lower-case hex sha256."""
    return hashlib.sha256(data).hexdigest()


def sample_seed(job_seed: int, stage: str, step: int, prompt_index: int, sample_index: int) -> int:
    """Seed of one sample, 0 .. 2**64-1: the first 8 bytes of sha256 over canonical JSON of the arguments."""
    digest = hashlib.sha256(canonical_json([job_seed, stage, step, prompt_index, sample_index])).digest()
    return int.from_bytes(digest[:8], "big")


def rollout_id(job: str, purpose: str, step: int, prompt_index: int, sample_index: int) -> str:
    """Id of one expected rollout: the same however often it is made."""
    return sha256_hex(canonical_json([job, purpose, step, prompt_index, sample_index]))[:24]
