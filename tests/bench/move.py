"""Measure how long `relay backup`, `relay move` to PostgreSQL and `relay restore` take, and their memory.

The database has so many mailboxes, each with two collections, a registration and twenty events. The commands run as
processes, one after the other; the move's time is the downtime that it costs, but for two starts of the relay.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sqlalchemy as sa

from relay.settings.database import DATABASE
from relay.store.tables import collection, event, mailbox
from tests.bench.site import figure
from tests.planting import plant
from tests.postgres import running_postgres

NOW: Final = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
EVENTS: Final = 20
AT_ONCE: Final = 1000
TOML: Final = """\
[relay]
state_dir = "state"
[api]
host = "127.0.0.1"
[servers.office]
url = "https://mail.example.com"
domains = ["example.com"]
"""


def more(numbers: Sequence[str]) -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:
    """Yield what some mailboxes have learnt, by table."""
    fixed = {"class": "email", "tries": 0, "newest": NOW, "seen": [f"5:{item}" for item in range(100)]}
    keys = [(mailbox, folder) for mailbox in numbers for folder in ("5", "6")]
    yield (
        collection,
        [
            {"mailbox_id": id_, "collection_id": folder, "sync_key": os.urandom(16).hex(), **fixed}
            for id_, folder in keys
        ],
    )
    held = {"at": NOW, "kind": "pushed", "what": "email", "result": "delivered"}
    yield event, [{"mailbox_id": id_, **held} for id_ in numbers for _ in range(EVENTS)]


def fill(folder: Path, number: int) -> None:
    """Fill the database of a relay.toml."""
    plant(folder, number, "secret")
    engine = sa.create_engine(f"sqlite:///{folder / 'state' / DATABASE}")
    with engine.begin() as connection:
        ids = connection.scalars(sa.select(mailbox.c.id)).all()
        for first in range(0, number, AT_ONCE):
            for table, rows in more(ids[first : first + AT_ONCE]):
                connection.execute(sa.insert(table), rows)
    engine.dispose()


def timed(name: str, *arguments: str) -> None:
    """Run a command; print its time by the clock, its CPU time and its greatest memory."""
    command = [sys.executable, "-m", "relay", *arguments]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"relay {name} failed")
    figure(f"{name}_s", time.monotonic() - began, "s")
    figure(f"{name}_cpu", used.ru_utime + used.ru_stime, "s")
    figure(f"{name}_memory", used.ru_maxrss / 1024, "MB")


async def main(number: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name, running_postgres(durable=True) as server:
        folder = Path(name)
        toml, file = folder / "relay.toml", folder / "one.backup.gz"
        toml.write_text(TOML)
        fill(folder, number)
        figure("database", (folder / "state" / DATABASE).stat().st_size / 1e6, "MB")
        timed("backup", "backup", str(file), "--config", str(toml))
        figure("file", file.stat().st_size / 1e6, "MB")
        timed("restore", "restore", str(file), "--replace", "--yes", "--config", str(toml))
        timed("move", "move", "--to", server.url(await server.create()), "--config", str(toml))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=50_000)
    asyncio.run(main(parser.parse_args().mailboxes))
