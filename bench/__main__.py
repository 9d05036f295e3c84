"""`python -m bench [--case uniform|ragged] [--steps N] [--rounds N] [--json FILE]`; progress goes to stderr."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.cases import BATCH, CASES, EPOCHS, Case
from bench.local_job import run_job
from bench.machine import describe
from bench.peak import measured_peak
from bench.peers.running import peer_python, run_peer
from bench.report import TARGETS, CaseReport, combine, summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print one JSON object and return 0."""
    # Ends by exception, so that the stack of the measurement ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options(arguments)
    names = [options.case] if options.case else list(CASES)
    result = {
        "what": f"one PPO step: batch {BATCH}, {EPOCHS} epochs, float32, Qwen2 of 3.35M parameters, all services on",
        "machine": describe(),
        "threads": options.threads,
        "targets": asdict(TARGETS),
        "cases": [_measure(CASES[name], options).to_json() for name in names],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _measure(case: Case, options: argparse.Namespace) -> CaseReport:
    """Run ours and the peer in turns, so that a change in the machine's speed affects both."""
    python = None if options.no_peer else peer_python()
    ours, peers = [], []
    for number in range(1, options.rounds + 1):
        _say(f"{case.name}: round {number} of {options.rounds}, ours")
        peak = measured_peak(options.threads)
        steps = run_job(case, options.steps, options.threads)
        peak = peak.best(measured_peak(options.threads))
        ours.append(summary(case, steps, peak))
        _say(json.dumps(asdict(ours[-1])))
        if python is not None:
            _say(f"{case.name}: round {number} of {options.rounds}, TRL")
            peers.append(run_peer(python, case.name, options.steps, options.threads))
            _say(json.dumps(asdict(peers[-1])))
    return combine(case, ours, peers)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed of a PPO step with all services on.")
    parser.add_argument("--case", choices=sorted(CASES), help="one case; both without it")
    parser.add_argument("--steps", type=int, default=4, help="steps of each run")
    parser.add_argument("--rounds", type=int, default=2, help="how often ours and the peer run in turns")
    parser.add_argument("--threads", type=int, default=2, help="threads of each process that holds a model")
    parser.add_argument("--no-peer", action="store_true", help="ours alone, even where the peer is installed")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
