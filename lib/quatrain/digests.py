"""Canonical JSON, sha256 and the seeds and ids that are derived from them."""

import hashlib
import json
from typing import Any


def canonical_json(value: object) -> bytes:
    """Return UTF-8 JSON, keys sorted, no spaces: equal values give equal bytes. Raises ValueError on NaN, infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(data: bytes | str) -> Any:
    """Return the JSON value. Raises ValueError if it is none, or is nested deeper than Python can hold."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def sha256_hex(data: bytes) -> str:
    """Return the sha256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sample_seed(job_seed: int, stage: str, step: int, prompt_index: int, sample_index: int) -> int:
    """Return the seed of one sample, 0 .. 2**64-1: the first 8 bytes of sha256 over the arguments as canonical JSON."""
    digest = hashlib.sha256(canonical_json([job_seed, stage, step, prompt_index, sample_index])).digest()
    return int.from_bytes(digest[:8], "big")


def rollout_id(job: str, purpose: str, step: int, prompt_index: int, sample_index: int) -> str:
    """Return the id of one expected rollout: equal arguments give equal ids."""
    return sha256_hex(canonical_json([job, purpose, step, prompt_index, sample_index]))[:24]
