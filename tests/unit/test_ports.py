"""Tests of the free ports that tests draw while other processes do."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.ports import PORTS, Reservations, free_ports

ROOT: Final = Path(__file__).parents[2]
TAKE: Final = """
import sys
from pathlib import Path
from tests.ports import Reservations
print(*(Reservations(Path(sys.argv[1])).take(port) for port in (20_005, 20_006)))
"""


def test_a_port_is_told_to_one_process_alone_until_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "ports.lock"
    ours = Reservations(file)
    assert ours.take(20_005)

    other = subprocess.run(
        (sys.executable, "-c", TAKE, str(file)), cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert other.stdout == "False True\n"
    assert (ours.take(20_005), ours.take(20_006)) == (False, True)


def test_ports_are_different_and_below_those_of_the_kernel() -> None:
    ports = free_ports(20) + free_ports(20)

    assert len(set(ports)) == 40
    assert set(ports) <= set(PORTS)
