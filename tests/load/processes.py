"""What processes take, by /proc."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its ended children; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(int(each) for each in fields[11:15]) / TICKS


def memory_mib(pid: int) -> float:
    """Proportional memory of a process in MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@dataclass
class CpuMeter:
    """CPU seconds of named processes since it was made."""

    pids: Mapping[str, int]
    started: float = field(default_factory=time.monotonic)
    before: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def shares(self) -> dict[str, float]:
        """CPU seconds by process, and the wall seconds as `wall`."""
        used = {name: round(cpu_seconds(pid) - self.before[name], 2) for name, pid in self.pids.items()}
        return {**used, "wall": round(time.monotonic() - self.started, 2)}


def slope(points: list[tuple[float, float]]) -> float:
    """Least-squares slope of y over x."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square if square else 0.0
