"""The Debian package and the wheel in an empty Debian: installed, first push, upgraded, removed, purged."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.packages.root import Root

ROOT: Final = Path(__file__).parents[2]
PHONE: Final = (
    r"""printf 'register\nexpect state watching within 60s\ndeliver\nexpect banner "New mail" within 60s\n' |"""
)
READY: Final = "until (exec 3<>/dev/tcp/127.0.0.1/9090) 2> /dev/null; do kill -0 %%; sleep 0.1; done"
"""Waits until the relay listens; `kill -0 %%` fails if it has ended."""
FOUND: Final = "until [ -e sandbox/sandbox.json ]; do kill -0 %%; sleep 0.1; done"
WITH_INIT: Final = (
    "relay sandbox &",
    "relay init rehearsal --owner root --sandbox sandbox",
    "relay serve --config rehearsal/relay.toml &",
    f"{PHONE} relay phone --script -",
)
WITHOUT_INIT: Final = (
    "/opt/push-relay/bin/relay sandbox &",
    "/opt/push-relay/bin/relay serve --config sandbox/relay.toml &",
    f"{PHONE} /opt/push-relay/bin/relay phone --script -",
)
MOST: Final = 5  # commands from an empty machine to the first push


def pushed(root: Root, commands: tuple[str, ...]) -> str:
    """Give the commands, each when the one before is ready; return what they printed."""
    lines = []
    for command in commands:
        lines.append(command)
        if command.endswith("sandbox &"):
            lines.append(FOUND)
        elif command.endswith("&"):
            lines.append(READY)
    return root.run("\n".join(["rm -rf sandbox rehearsal", *lines, "kill %1 %2; wait"]))


def test_the_first_push_after_the_installation_of_the_package(root: Root, package: Path) -> None:
    file = root.take(package)
    install = f"apt-get install -y -q --no-install-recommends {file}"
    root.run(f"apt-get update -q; {install}", network=True)

    said = pushed(root, WITH_INIT)

    assert "New mail" in said
    assert len((install, *WITH_INIT)) <= MOST


def test_the_package_has_what_administrators_expect(root: Root, package: Path) -> None:
    for path in (
        *("/usr/bin/relay", "/usr/share/man/man1/relay.1.gz", "/usr/share/bash-completion/completions/relay"),
        *("/usr/share/zsh/vendor-completions/_relay", "/usr/share/fish/vendor_completions.d/relay.fish"),
        *("/usr/lib/systemd/system/push-relay.service", "/usr/lib/systemd/system/push-relay@.service"),
        "/usr/lib/systemd/system/push-relay.socket",
        *("/usr/share/doc/push-relay/sbom.cdx.json", "/usr/share/doc/push-relay/operate.md"),
        *("/usr/share/doc/push-relay/examples/relay.toml", "/usr/share/doc/push-relay/examples/postgresql-grants.sql"),
        "/etc/default/push-relay",
    ):
        assert root.exists(path), path
    assert root.run("relay --version").split() == ["relay", re.split("[_-]", package.name)[2]]
    for folder in ("/etc/push-relay", "/var/lib/push-relay"):
        assert root.run(f"stat -c '%U %a' {folder}").split() == ["push-relay", "700"]
    roles = root.run("cat /usr/lib/systemd/system/push-relay@.service")
    assert "serve --role %i --config /etc/push-relay/%i/relay.toml" in roles
    assert (
        "TemporaryFileSystem=/etc/push-relay:ro /var/lib/push-relay:ro\nBindReadOnlyPaths=/etc/push-relay/%i\n" in roles
    )
    assert "/opt/" not in roles
    socket = root.run("cat /usr/lib/systemd/system/push-relay.socket")
    assert "Service=push-relay.service" in socket
    assert " relay.s" not in socket
    for wanted in ("sockets.target.wants/push-relay.socket", "multi-user.target.wants/push-relay.service"):
        assert not root.exists(f"/etc/systemd/system/{wanted}"), wanted


def test_debians_python_reads_documents_as_this_one_does(root: Root, package: Path) -> None:
    """Python 3.11.2 has had faults in regular expressions that later ones have not [CPython: gh-106052]."""
    program, vectors = Path(__file__).parent / "reading.py", ROOT / "tests/vectors/wbxml-vectors.json"
    command = (sys.executable, str(program), str(vectors))
    here = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={"PYTHONPATH": str(ROOT)})

    there = root.run(f"/usr/lib/push-relay/bin/python3 {root.take(program)} {root.take(vectors)}")

    assert there == here.stdout


def test_init_gives_each_role_its_folder_as_the_user_of_the_service(root: Root) -> None:
    root.run("relay init --roles api,watch,push --server https://mail.example.com --app com.example.mail")

    owners = root.run("stat -c '%U %a' /etc/push-relay/watch/sealing-private.pem /etc/push-relay/api/relay.toml")
    faults = root.run(
        "runuser -u push-relay -- relay check --role watch --config /etc/push-relay/watch/relay.toml 2>&1"
    )
    assert owners.split() == ["push-relay", "600"] * 2
    assert "good for role watch" in faults


def test_an_upgrade_and_a_removal_keep_what_the_administrator_made(root: Root, package: Path) -> None:
    root.run("echo RELAY__LOG__LEVEL=debug >> /etc/default/push-relay; touch /var/lib/push-relay/relay.sqlite3")
    said = root.run(f"dpkg -i {root.take(package)}")
    assert "relay migrate --grants --config /etc/push-relay/migrate/relay.toml" in said
    root.run("apt-get remove -y -q push-relay")

    kept = root.run("cat /etc/default/push-relay; ls /etc/push-relay/watch /var/lib/push-relay")
    assert "debug" in kept.splitlines()[-1] or "RELAY__LOG__LEVEL=debug" in kept.splitlines()
    assert "sealing-private.pem" in kept
    assert "relay.sqlite3" in kept
    assert not root.exists("/usr/lib/push-relay")
    assert not root.exists("/usr/bin/relay")


def test_a_purge_leaves_no_credential_and_the_package_can_come_back(root: Root, package: Path) -> None:
    root.run("apt-get purge -y -q push-relay")

    assert not [
        path for path in ("/etc/push-relay", "/var/lib/push-relay", "/etc/default/push-relay") if root.exists(path)
    ]

    root.run(f"dpkg -i {root.take(package)}; relay --version; dpkg --purge push-relay")


def test_lintian_finds_no_error_and_no_warning(package: Path) -> None:
    done = subprocess.run(
        ("lintian", "--fail-on", "error,warning", "--allow-root", str(package)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_the_first_push_after_the_installation_of_the_wheel(root: Root, wheels: Path) -> None:
    (root.folder / "tmp/wheels").mkdir()
    for wheel in wheels.iterdir():
        (root.folder / "tmp/wheels" / wheel.name).write_bytes(wheel.read_bytes())
    installs = (
        "python3 -m venv /opt/push-relay",
        "/opt/push-relay/bin/pip install -q --no-index --find-links /tmp/wheels push-relay",
    )
    root.run("\n".join(installs))

    said = pushed(root, WITHOUT_INIT)

    assert "New mail" in said
    assert len((*installs, *WITHOUT_INIT)) <= MOST


def test_the_wheel_is_complete_by_itself(root: Root) -> None:
    said = root.run(
        "/opt/push-relay/bin/relay init new --non-interactive; /opt/push-relay/bin/relay files files; ls files"
    )

    assert "Left to do" in said
    assert {
        "relay.toml",
        "relay.service",
        "prometheus-alerts.yml",
        "zabbix-template.yaml",
        "postgresql-grants.sql",
        "LICENSE",
        "relay.1",
    } <= set(said.split())
