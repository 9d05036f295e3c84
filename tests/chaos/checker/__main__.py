"""Checks one job by hand: `python -m tests.chaos.checker --folder STORE --job ID`. Exits with 1 on a violation."""

import argparse
import os
import sys
from collections.abc import Sequence

from tests.chaos.checker.check import examine
from tests.chaos.checker.objects import FolderObjects, Objects, S3Objects
from tests.chaos.checker.observed import Observed
from tests.chaos.checker.verdict import INVARIANTS


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.checker", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", help="folder of a local object store")
    where.add_argument("--s3", metavar="HOST:PORT/BUCKET", help="keys: S3_ACCESS_KEY and S3_SECRET_KEY")
    parser.add_argument("--secure", action="store_true", help="https to the S3 server")
    parser.add_argument("--job", required=True)
    parser.add_argument("--running", action="store_true", help="the job need not have ended")
    parser.add_argument("--unbroken", metavar="JOB", help="a job in the same store that must have the same outcome")
    options = parser.parse_args(argv)
    objects = _objects(options)
    unbroken = (objects, options.unbroken) if options.unbroken else None
    verdict = examine(objects, options.job, Observed(running=options.running), unbroken)
    for invariant, meaning in INVARIANTS.items():
        bad = [str(violation) for violation in verdict.violations if violation.invariant == invariant]
        state = "broken" if bad else "not decided" if invariant in verdict.open else "holds"
        print(f"{invariant:<4} {state:<12} {meaning}", *bad, sep="\n       ")
    for name, reason in verdict.undecided.items():
        print(f"not decided: {name}: {reason}")
    return 1 if verdict.violations else 0


def _objects(options: argparse.Namespace) -> Objects:
    if options.folder:
        return FolderObjects(options.folder)
    endpoint, _, bucket = options.s3.partition("/")
    access, secret = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
    return S3Objects(endpoint, bucket, access, secret, secure=options.secure)


if __name__ == "__main__":
    sys.exit(main())
