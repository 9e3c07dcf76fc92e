"""Runs a relay that kills itself while it copies a table, as `python THIS DOING python -m relay`.

DOING is what it tells of its progress then, e.g. "write mailbox".
"""

import os
import runpy
import signal
import sys

from relay.cli import backups

mortal = sys.argv[1]


def tell_or_die(doing: str, rows: int, *, whole: bool) -> None:
    if doing == mortal:
        os.kill(os.getpid(), signal.SIGKILL)


backups._tell = tell_or_die
sys.argv = sys.argv[4:]
runpy.run_module("relay", run_name="__main__", alter_sys=True)
