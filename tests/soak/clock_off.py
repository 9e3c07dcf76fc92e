"""Run the relay with its host's clock put forward by some seconds: `clock_off.py SECONDS PYTHON -m relay ...`."""

import runpy
import sys
from datetime import UTC, datetime, timedelta

from relay.process import clock

AHEAD = timedelta(seconds=float(sys.argv[1]))


def wrong() -> datetime:
    """Return the time that the host thinks it is."""
    return datetime.now(UTC) + AHEAD  # noqa: TID251 -- the clock of a process in a test


if __name__ == "__main__":
    clock.now = wrong  # before any other module takes it
    sys.argv = ["relay", *sys.argv[5:]]
    runpy.run_module("relay", run_name="__main__")
