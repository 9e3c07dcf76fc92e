"""The image and docker-compose.yml on a real Docker Engine: built, first push in both profiles, roles kept apart.

Images of PostgreSQL and HAProxy come from registries, which tests do not reach: Debian's programs stand in for them,
with the parts of their images' interface that docker-compose.yml uses.
"""

import asyncio
import json
import re
import resource
import secrets
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.interop.docker_engine import (
    BASE,
    HOST,
    HOST_PORT,
    INTERNET,
    MAIL,
    Engine,
    background,
    compose_file,
    docker_engine,
    run,
    within,
)
from tests.interop.packages import Unavailable, unavailable
from tests.waiting import until

ROOT: Final = Path(__file__).parents[2]
MAIL_HOST: Final = "mail.example.com"
MAIL_PORT, APNS_PORT, API_PORT, OPS_PORT, DATABASE_PORT = 443, 8444, 8443, 9090, 5432
IMAGE: Final = "push-relay:0.1.0"
SANDBOX: Final = ("--host", "0.0.0.0", "--name", MAIL_HOST, "--name", HOST, "--name", INTERNET)
PUSHED: Final = 'register\nexpect state watching within 60s\ndeliver\nexpect banner "New mail" within 60s\n'
PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps")

PROBE: Final = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def state(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError as error:
        return type(error).__name__
    return "open"

targets = sys.argv[1:]
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(dict(zip(targets, pool.map(state, targets)))))
"""
POSTGRES: Final = """
FROM {base}
RUN printf '%s\\n' '#!/bin/sh' 'set -eu' 'export PATH=$(echo /usr/lib/postgresql/*/bin):$PATH' \\
  'data=/var/lib/postgresql/data; chown postgres $data; chmod 700 $data; install -d -o postgres /run/postgresql' \\
  'as() {{ setpriv --reuid postgres --regid postgres --init-groups "$@"; }}' \\
  'if [ ! -e $data/PG_VERSION ]; then' \\
  '  (umask 077; cp "$POSTGRES_PASSWORD_FILE" /tmp/word; chown postgres /tmp/word)' \\
  '  as initdb -D $data --auth=scram-sha-256 --auth-local=trust --pwfile /tmp/word; rm /tmp/word' \\
  '  echo "host all all all scram-sha-256" >> $data/pg_hba.conf' \\
  '  as pg_ctl -D $data -w -o "-c listen_addresses=" start' \\
  '  for file in /docker-entrypoint-initdb.d/*.sql; do as psql -v ON_ERROR_STOP=1 -f $file; done' \\
  '  as pg_ctl -D $data -w stop' \\
  'fi' \\
  'exec setpriv --reuid postgres --regid postgres --init-groups postgres -D $data -c "listen_addresses=*"' \\
  > /usr/local/bin/start && chmod 755 /usr/local/bin/start
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
CMD ["start"]
"""
HAPROXY: Final = """
FROM {base}
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with ExitStack() as stack:
        try:
            started = stack.enter_context(docker_engine())
        except Unavailable as reason:
            unavailable(reason)
        # Programs of the host itself: here it serves the packages of Python.
        wheels = download(tmp_path_factory.mktemp("index"))
        serve = (sys.executable, "-m", "http.server", str(HOST_PORT))
        stack.enter_context(background(started.folder, "index", *within(started.host), *serve, cwd=wheels))
        yield started


def download(folder: Path) -> Path:
    """Download the locked libraries, and what builds the relay."""
    lock = ("--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements/run.txt"))
    run(*PIP, "--dest", str(folder), *lock)
    run(*PIP, "--dest", str(folder), *tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"])
    return folder


@pytest.fixture(scope="module")
def word() -> str:
    """The password of the index of packages."""
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def image(engine: Engine, word: str) -> str:
    """Build the image as docs/install.md says for an index of one's own."""
    settings = engine.folder / "pip.conf"
    settings.write_text(f"[global]\nno-index = true\nfind-links = http://index:{word}@127.0.0.1:{HOST_PORT}/\n")
    source = engine.folder / "source"
    run("git", "clone", "--quiet", "--local", str(ROOT), str(source))
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(ROOT / name, source / name)
    given = ("--build-arg", f"PYTHON_IMAGE={BASE}", "--secret", f"id=pip,src={settings}")
    engine.docker("build", "--network", "host", *given, "--tag", IMAGE, ".", cwd=source)
    for name, text in (("postgres", POSTGRES), ("haproxy", HAPROXY)):
        folder = engine.folder / name
        folder.mkdir()
        (folder / "Dockerfile").write_text(text.format(base=BASE))
        engine.docker("build", "--network", "none", "--tag", f"{name}.example.com/{name}:test", str(folder))
    return IMAGE


@contextmanager
def sandbox(engine: Engine, folder: Path) -> Iterator[Path]:
    """Run the sandbox on the neighbour of the host: mail server in the company, APNs outside it."""
    made = folder / "sandbox"
    ports = ("--eas", str(MAIL_PORT), "--api", str(API_PORT), "--ops", str(OPS_PORT), "--apns", str(APNS_PORT))
    command = (sys.executable, "-m", "relay", "sandbox", "--folder", str(made), *SANDBOX, *ports)
    with background(folder, "sandbox", *within(engine.neighbour), *command, cwd=ROOT) as process:

        def written() -> bool:
            assert process.poll() is None, (folder / "sandbox.log").read_text()
            return (made / "sandbox.json").exists()

        asyncio.run(until(written))
        yield made


@contextmanager
def installation(engine: Engine, folder: Path, *options: str) -> Iterator[Path]:
    """Make an administrator's folder: shipped files, .env, and what `init` writes; remove the containers at the end."""
    site = folder / "site"
    (site / "config").mkdir(parents=True)
    for name in ("docker-compose.yml", "config/mail-gate.cfg", "config/docker-firewall.sh"):
        shutil.copy(ROOT / name, site / name)
    compose = site / "docker-compose.yml"
    compose.write_text(compose_file(engine, compose.read_text()))
    gate = site / "config/mail-gate.cfg"  # of fewer connections, as the machine may allow fewer open files
    gate.write_text(gate.read_text().replace("maxconn 60000", "maxconn 600"))
    variables = {
        "COMPOSE_PROJECT_NAME": "push-relay",
        "MAIL_HOST": MAIL_HOST,
        "MAIL_ADDRESS": f"{MAIL}:{MAIL_PORT}",
        "POSTGRES_IMAGE": "postgres.example.com/postgres:test",
        "HAPROXY_IMAGE": "haproxy.example.com/haproxy:test",
    }
    (site / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    (site / "docker-compose.override.yml").write_text(override(yaml.safe_load(compose.read_text())["services"]))
    try:
        with sandbox(engine, folder) as made:
            volume = ("--volume", f"{made}:/sandbox:ro")
            engine.composed(
                site, "run", "--rm", *volume, "init", "--sandbox", "/sandbox", "--non-interactive", *options
            )
            for config in (site / "deploy").rglob("relay.toml"):
                config.write_text(elsewhere(config.read_text()))
            yield site
    finally:
        engine.composed(site, "--profile", "scale", "down", "--volumes", "--timeout", "5")


def override(services: Mapping[str, Any]) -> str:
    """Return what this machine needs besides: as many open files as it allows, and a name in place of a DNS server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = {
        name: {"ulimits": {"nofile": min(most, service["ulimits"]["nofile"])}}
        for name, service in services.items()
        if "ulimits" in service
    }
    return json.dumps({"services": limited | {"relay": {**limited["relay"], "extra_hosts": [f"{MAIL_HOST}:{MAIL}"]}}})


def elsewhere(text: str) -> str:
    """Return the settings for a sandbox that is not on the relay's own machine."""
    named = text.replace("https://127.0.0.1:443/", f"https://{MAIL_HOST}:443/")
    return re.sub(
        r"(?m)^(host|sandbox_host|url|hosts) = (\W*(?:https://)?)127\.0\.0\.1", rf"\1 = \g<2>{INTERNET}", named
    )


def first_push(engine: Engine, folder: Path) -> str:
    """Be a phone that registers with the relay and gets a push; return what it showed."""
    phone = (sys.executable, "-m", "relay", "phone", "--folder", str(folder / "sandbox"), "--script", "-")
    return run(*within(engine.neighbour), *phone, "--api", f"https://{HOST}:{API_PORT}", cwd=ROOT, given=PUSHED)


def container(engine: Engine, service: str) -> dict[str, Any]:
    """Return what the engine knows of the container of a service."""
    labels = ("--filter", f"label=com.docker.compose.service={service}")
    (name,) = engine.docker("ps", "--all", "--quiet", *labels).split()
    (known,) = json.loads(engine.docker("inspect", name))
    return dict(known)


def healthy(engine: Engine, *services: str) -> None:
    """Wait until the health checks of services say that they live."""

    def all_healthy() -> bool:
        states = {name: container(engine, name)["State"]["Health"]["Status"] for name in services}
        return set(states.values()) == {"healthy"}

    asyncio.run(until(all_healthy, 120))


def reached(engine: Engine, known: Mapping[str, Any], *targets: str) -> dict[str, str]:
    """Return for each HOST:PORT whether a program in a container connects to it: "open", or an error."""
    said = engine.docker("exec", known["Id"], "python3", "-c", PROBE, *targets)
    return dict(json.loads(said))


def addresses(known: Mapping[str, Any]) -> list[str]:
    return [network["IPAddress"] for network in known["NetworkSettings"]["Networks"].values()]


@pytest.mark.timeout(600, func_only=True)
def test_the_image_runs_as_a_number_and_holds_nothing_of_the_index(engine: Engine, image: str, word: str) -> None:
    (known,) = json.loads(engine.docker("inspect", image))
    saved = engine.folder / "saved.tar"
    engine.docker("save", "--output", str(saved), image)

    assert known["Config"]["User"] == "10001:10001"
    assert engine.docker("run", "--rm", "--read-only", image, "--version").split()[0] == "relay"
    for what in (word, f":{HOST_PORT}/", "index:"):
        assert what not in engine.docker("history", "--no-trunc", image)
    found = subprocess.run(("grep", "--quiet", "--fixed-strings", word, str(saved)), check=False)
    saved.unlink()
    assert found.returncode == 1
    assert engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", "cat /etc/pip.conf 2>&1; id -u").endswith(
        "10001\n"
    )


@pytest.mark.timeout(600, func_only=True)
def test_the_first_push_of_one_process_under_compose(engine: Engine, image: str, tmp_path: Path) -> None:
    with installation(engine, tmp_path) as site:
        engine.on_host("sh", str(site / "config/docker-firewall.sh"))
        engine.composed(site, "up", "--detach", "relay")
        healthy(engine, "relay")

        said = first_push(engine, tmp_path)

        relay = container(engine, "relay")
        assert "New mail" in said
        assert relay["HostConfig"]["ReadonlyRootfs"]
        assert relay["HostConfig"]["LogConfig"]["Config"] == {"max-size": "20m", "max-file": "5"}
        assert reached(engine, relay, f"{HOST}:{HOST_PORT}", f"{relay_gateway(relay)}:{HOST_PORT}") == {
            f"{HOST}:{HOST_PORT}": "ConnectionRefusedError",
            f"{relay_gateway(relay)}:{HOST_PORT}": "ConnectionRefusedError",
        }


def relay_gateway(known: Mapping[str, Any]) -> str:
    (network,) = known["NetworkSettings"]["Networks"].values()
    return str(network["Gateway"])


@pytest.mark.timeout(600, func_only=True)
def test_three_roles_under_compose_push_and_reach_nothing_that_is_not_theirs(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    services = ("api", "watch", "push", "postgres", "mail-gate")
    with installation(engine, tmp_path, "--roles", "api,watch,push") as site:
        engine.on_host("iptables", "-F", "INPUT")
        engine.on_host("iptables", "-F", "DOCKER-USER")
        engine.composed(site, "--profile", "scale", "up", "--detach")
        healthy(engine, "api", "watch", "push")
        known = {name: container(engine, name) for name in services}
        mail, apns, host = f"{MAIL}:{MAIL_PORT}", f"{INTERNET}:{APNS_PORT}", f"{HOST}:{HOST_PORT}"
        gateways = [
            f"{network['Gateway']}:{HOST_PORT}"
            for each in known.values()
            for network in each["NetworkSettings"]["Networks"].values()
            if network["Gateway"]
        ]
        # By name and by address: all ports that anybody listens on, and the API as published on the host.
        targets = [mail, apns, host, f"{HOST}:{API_PORT}", f"{MAIL_HOST}:{MAIL_PORT}", *gateways]
        for name, each in known.items():
            for place in (name, *addresses(each)):
                targets += [f"{place}:{port}" for port in (OPS_PORT, API_PORT, DATABASE_PORT, MAIL_PORT)]

        # Without the rules Docker lets the push role reach the mail server and the host: what the rules are for.
        assert reached(engine, known["push"], mail, host) == {mail: "open", host: "open"}
        for _ in range(2):  # it may run again at any time
            engine.on_host("sh", str(site / "config/docker-firewall.sh"))

        assert "New mail" in first_push(engine, tmp_path)
        for role, theirs in {
            "api": set(),
            "watch": {
                f"{MAIL_HOST}:{MAIL_PORT}",
                *(f"{place}:{MAIL_PORT}" for place in shared(known, "watch", "mail-gate")),
            },
            "push": {apns},
        }.items():
            own = {f"{place}:{port}" for place in (role, *addresses(known[role])) for port in (OPS_PORT, API_PORT)}
            database = {f"{place}:{DATABASE_PORT}" for place in shared(known, role, "postgres")}
            named = {f"{name}:{port}" for name, port in (("postgres", DATABASE_PORT), ("mail-gate", MAIL_PORT))}
            states = reached(engine, known[role], *sorted(set(targets) - own))

            open_ones = {target for target, state in states.items() if state == "open"}
            assert open_ones - named == theirs | database, role
            assert f"postgres:{DATABASE_PORT}" in open_ones
            assert (f"mail-gate:{MAIL_PORT}" in open_ones) is (role == "watch")


def shared(known: Mapping[str, Any], one: str, other: str) -> list[str]:
    """Return the addresses of a container in the networks that it shares with another one."""
    mine = known[one]["NetworkSettings"]["Networks"]
    networks = known[other]["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for name, network in networks.items() if name in mine]
