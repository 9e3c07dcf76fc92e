"""Test what the service manager is told, over a real datagram socket, and which sockets are taken from it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.process.service_manager import ServiceManager, passed_sockets


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def manager_at(path: Path, **environ: str) -> ServiceManager:
    return ServiceManager.of({"NOTIFY_SOCKET": str(path), **environ}, os.getpid())


def test_the_states_of_a_process_are_told_in_the_words_of_the_protocol(
    tmp_path: Path, listening: socket.socket
) -> None:
    manager = manager_at(tmp_path / "notify")
    manager.ready("role all")
    assert heard(listening) == ["READY=1", "STATUS=role all"]
    manager.stopping("ends")
    assert heard(listening) == ["STOPPING=1", "STATUS=ends"]
    manager.status("all\nis well")
    assert heard(listening) == ["STATUS=all is well"], "a status is one line"
    manager.alive()
    assert heard(listening) == ["WATCHDOG=1"]


def test_a_reload_is_told_with_its_moment(tmp_path: Path, listening: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager_at(tmp_path / "notify").reloading()

    first, moment, _ = heard(listening)

    assert first == "RELOADING=1"
    name, _, value = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_the_abstract_name_space_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0push-relay-test-{os.getpid()}")
        sock.settimeout(5)
        ServiceManager(f"@push-relay-test-{os.getpid()}").alive()

        assert heard(sock) == ["WATCHDOG=1"]


def test_without_a_manager_nobody_is_told() -> None:
    ServiceManager.of({}, 1).ready("role all")


def test_a_manager_that_does_not_listen_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = manager_at(tmp_path / "none")
    manager.alive()
    manager.alive()

    assert [record.message for record in caplog.records] == ["service manager not told"]


def test_signs_of_life_come_three_times_in_the_time_that_the_manager_allows(tmp_path: Path) -> None:
    assert manager_at(tmp_path, WATCHDOG_USEC="60000000").period == 20
    assert manager_at(tmp_path, WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid())).period == 20


def test_signs_of_life_of_another_process_or_none_are_not_given(tmp_path: Path) -> None:
    assert manager_at(tmp_path, WATCHDOG_USEC="60000000", WATCHDOG_PID="1").period is None
    assert manager_at(tmp_path, WATCHDOG_USEC="often").period is None
    assert manager_at(tmp_path).period is None
    assert ServiceManager.of({"WATCHDOG_USEC": "60000000"}, 1).period is None


PASSED = """
import os, socket, sys
from relay.process.service_manager import passed_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
found = passed_sockets(os.environ, os.getpid())
print({port: [each.getsockname()[1] for each in sockets] for port, sockets in found.items()})
print([name for name in os.environ if name.startswith("LISTEN")])
print(any(os.get_inheritable(each.fileno()) for sockets in found.values() for each in sockets))
"""


def test_passed_sockets_are_found_by_their_port_and_others_are_closed() -> None:
    with socket.socket() as api, socket.socket() as silent:
        api.bind(("127.0.0.1", 0))
        api.listen()
        port = api.getsockname()[1]
        command = f'exec 3<&{api.fileno()} 4<&{silent.fileno()}; exec "$0" -c "$1"'
        ended = subprocess.run(
            ["bash", "-c", command, sys.executable, PASSED],
            env={**os.environ, "LISTEN_FDS": "3"},
            pass_fds=(api.fileno(), silent.fileno()),
            capture_output=True,
            text=True,
            check=True,
        )

    assert ended.stdout.splitlines() == [f"{{{port}: [{port}]}}", "[]", "False"]
    assert ended.stderr.count("passed socket not used") == 2


def test_sockets_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "PATH": "/bin"}

    assert passed_sockets(environ, 2) == {}
    assert environ == {"PATH": "/bin"}
    assert passed_sockets({"LISTEN_PID": "2", "LISTEN_FDS": "many"}, 2) == {}
