"""The log as the real journal keeps it: systemd-journald of Debian's packages, in a mount namespace of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.interop.packages import Unavailable, install, unavailable

JOURNALD: Final = Path("/lib/systemd/systemd-journald")
SCRIPT: Final = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd /run/log/journal
"$1" 2> "$3/journald.log" &
journald=$!
trap 'kill "$journald"; wait "$journald"' EXIT
for _ in $(seq 300); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
# As systemd does for a service: standard error is a stream of the journal, and JOURNAL_STREAM names it.
systemd-cat --identifier=relay-test \\
  sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh "$2" "$3/log.py"
for _ in $(seq 300); do
  journalctl --directory "$(echo /run/log/journal/*)" --output=json --all --no-pager --quiet > "$3/entries.json"
  # The last two events, which come to the journal on two ways.
  grep -q "no such shard" "$3/entries.json" && grep -q huge "$3/entries.json" && break
  sleep 0.1
done
"""
PROGRAM: Final = """
import logging, sys
from relay.process.log import configure

configure("info", "journal", sys.stderr)
log = logging.getLogger("relay.test")
log.warning("watch waits", extra={"reason": "a\\nPRIORITY=0", "status": 2, "device_token": "canary-token"})
log.info("large", extra={"detail": "x" * 60_000})
log.info("huge", extra={f"part_{number}": "x" * 16_000 for number in range(10)})
try:
    raise ValueError("no such shard")
except ValueError:
    log.exception("lost")
"""


def test_the_journal_keeps_fields_priorities_and_tracebacks(tmp_path: Path) -> None:
    try:
        install("systemd")
    except Unavailable as reason:
        unavailable(reason)
    unshare = shutil.which("unshare")
    assert unshare is not None
    tmp_path.chmod(0o755)
    (tmp_path / "log.py").write_text(PROGRAM)
    (tmp_path / "run.sh").write_text(SCRIPT)
    command = [unshare, "--mount", "--propagation", "private", "bash", str(tmp_path / "run.sh")]
    command += [str(JOURNALD), sys.executable, str(tmp_path)]

    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

    if "permission denied" in ended.stderr.lower():
        pytest.skip(f"this machine lets nobody mount: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "entries.json").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    mine = {entry["RELAY_EVENT"]: entry for entry in entries if "RELAY_EVENT" in entry}
    waits = mine["watch waits"]
    assert (waits["PRIORITY"], waits["SYSLOG_IDENTIFIER"], waits["_TRANSPORT"]) == ("4", "push-relay", "journal")
    assert (waits["RELAY_REASON"], waits["RELAY_STATUS"]) == ("a\nPRIORITY=0", "2")
    assert waits["RELAY_DEVICE_TOKEN"] == "<secret>"
    assert mine["large"]["RELAY_DETAIL"].endswith("x... (cut)")
    assert mine["lost"]["PRIORITY"] == "3"
    assert "ValueError: no such shard" in mine["lost"]["MESSAGE"]
    assert "canary-token" not in text
    assert "huge" not in mine
    lines = [entry["MESSAGE"] for entry in entries if entry["_TRANSPORT"] == "stdout"]
    assert any('"event": "huge"' in line for line in lines)
