"""Builds the Debian package with pip and dpkg-deb: `build.py FOLDER` writes push-relay_VERSION_ARCHITECTURE.deb there.

It is for the Debian release whose Python has the version of the Python that runs this: 3.11 is Debian 12, 3.13 is 13.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY: Final = Path("usr/lib/push-relay")
SITE: Final = LIBRARY / f"lib/python{PYTHON}/site-packages"
UNITS: Final = Path("usr/lib/systemd/system")
DOCS: Final = Path("usr/share/doc/push-relay")
REVISION: Final = "1"
CONFFILE: Final = "etc/default/push-relay"
ROLE_FOLDERS: Final = """
# Roles that share a host run as one user: each sees its own settings, keys and state alone.
TemporaryFileSystem=/etc/push-relay:ro /var/lib/push-relay:ro
BindReadOnlyPaths=/etc/push-relay/%i
BindPaths=/var/lib/push-relay/%i
"""
_PLACES: Final = {
    "relay.1": Path("usr/share/man/man1/relay.1"),
    "relay.bash": Path("usr/share/bash-completion/completions/relay"),
    "_relay": Path("usr/share/zsh/vendor-completions/_relay"),
    "relay.fish": Path("usr/share/fish/vendor_completions.d/relay.fish"),
}
"""Where shells and man look for what `relay files` makes."""


def build(target: Path) -> Path:
    """Build the package into a folder, and return its path."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    moment = _moment()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="push-relay-deb-") as folder:
        stage = Path(folder) / "root"
        _install(stage, Path(folder))
        _programs(stage)
        _files(stage, Path(folder))
        _units(stage)
        _documents(stage, version, moment)
        architecture = _run("dpkg", "--print-architecture").strip()
        _control(stage, f"{version}-{REVISION}", architecture)
        _settle(stage, moment)
        package = target / f"push-relay_{version}-{REVISION}_{architecture}.deb"
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(moment)}
        _run("dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", str(stage), str(package), environ=environ)
    return package


def _install(stage: Path, folder: Path) -> None:
    """Install the locked libraries and the relay; nothing is resolved."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    site = stage / SITE
    options = ("--no-deps", "--no-compile", "--target", str(site))
    lock = ("--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements/run.txt"))
    _run(*pip, "install", *options, *lock)
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder / "wheel"), str(ROOT))
    (wheel,) = (folder / "wheel").glob("*.whl")
    _run(*pip, "install", "--upgrade", *options, str(wheel))
    shutil.rmtree(site / "bin")
    for each in (*site.glob("*.dist-info/RECORD"), *site.glob("*.dist-info/direct_url.json")):
        each.unlink()  # the list of files is dpkg's


def _programs(stage: Path) -> None:
    """Make the virtual environment's programs, on the Python of the host."""
    library = stage / LIBRARY
    (library / "bin").mkdir()
    (library / "bin/python3").symlink_to(f"../../../bin/python{PYTHON}")
    (library / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    program = library / "bin/relay"
    start = "import sys\n\nfrom relay.cli.main import main\n\nsys.exit(main())\n"
    program.write_text(f"#!/{LIBRARY}/bin/python3 -I\n{start}")
    program.chmod(0o755)
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin/relay").symlink_to("../lib/push-relay/bin/relay")


def _files(stage: Path, folder: Path) -> None:
    """Let the staged relay write the files that come with it; what nobody looks for elsewhere are examples."""
    made = folder / "files"
    environ = {**os.environ, "PYTHONPATH": str(stage / SITE), "PYTHONDONTWRITEBYTECODE": "1"}
    _run(sys.executable, "-s", "-m", "relay", "files", str(made), environ=environ)
    examples = stage / DOCS / "examples"
    examples.mkdir(parents=True)
    for file in made.iterdir():
        place = stage / _PLACES.get(file.name, DOCS / "examples" / file.name)
        if file.name not in ("LICENSE", "relay.service", "relay.socket"):  # they have places of their own
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    _compress(stage / _PLACES["relay.1"])


def _units(stage: Path) -> None:
    """Make both services of the one that the sample has, all roles and one role for each instance, and the socket."""
    folder = stage / UNITS
    folder.mkdir(parents=True)
    head, _, unit = (ROOT / "config/relay.service").read_text(encoding="utf-8").partition("[Unit]\n")
    del head  # it tells how to serve one role; that is the other unit here
    serve = "ExecStart=/opt/push-relay/bin/relay serve --config /etc/push-relay/relay.toml"
    if serve not in unit or "StateDirectory=push-relay\n" not in unit:
        raise SystemExit("config/relay.service has changed: teach packaging/debian/build.py how it starts the relay")
    unit = "[Unit]\n" + unit.replace("[Service]\n", f"[Service]\nEnvironmentFile=-/{CONFFILE}\n", 1)
    single = unit.replace("/opt/push-relay/bin/", "/usr/bin/")
    (folder / "push-relay.service").write_text(single)
    role = single.replace(
        "serve --config /etc/push-relay/relay.toml", "serve --role %i --config /etc/push-relay/%i/relay.toml"
    )
    role = role.replace("Description=Push notification relay", "Description=Push notification relay, role %i")
    role = role.replace("StateDirectory=push-relay\n", "StateDirectory=push-relay push-relay/%i\n")
    role = role.replace("\nNoNewPrivileges=yes\n", f"{ROLE_FOLDERS}\nNoNewPrivileges=yes\n")
    socket = (ROOT / "config/relay.socket").read_text(encoding="utf-8")
    for old, new in (("relay.socket", "push-relay.socket"), ("Service=relay.service", "Service=push-relay.service")):
        if old not in socket:
            raise SystemExit(f"config/relay.socket has changed: teach packaging/debian/build.py what became of {old}")
        socket = socket.replace(old, new)
    (folder / "push-relay.socket").write_text(socket)
    (folder / "push-relay@.service").write_text(role.replace("/var/lib/push-relay,", "/var/lib/push-relay/ROLE,"))


def _documents(stage: Path, version: str, moment: int) -> None:
    """Write documents, licences, both changelogs and the bill of materials."""
    docs = stage / DOCS
    for page in sorted((ROOT / "docs").glob("*.md")):
        shutil.copyfile(page, docs / page.name)
    shutil.copyfile(HERE / "copyright", docs / "copyright")
    shutil.copyfile(ROOT / "CHANGELOG.md", docs / "changelog")
    entry = "  * See changelog.gz, which says first what to do on an upgrade.\n"
    date = format_datetime(datetime.fromtimestamp(moment, UTC))
    maintainer = "The push relay's contributors <push-relay@example.com>"
    text = f"push-relay ({version}-{REVISION}) stable; urgency=medium\n\n{entry}\n -- {maintainer}  {date}\n"
    (docs / "changelog.Debian").write_text(text)
    for name in ("changelog", "changelog.Debian"):
        _compress(docs / name)
    _run(sys.executable, str(ROOT / "packaging/sbom.py"), str(docs / "sbom.cdx.json"), str(stage / SITE))
    overrides = stage / "usr/share/lintian/overrides/push-relay"
    overrides.parent.mkdir(parents=True)
    shutil.copyfile(HERE / "lintian-overrides", overrides)


def _control(stage: Path, version: str, architecture: str) -> None:
    """Write what dpkg reads: control, scripts of the maintainer, conffiles, sums."""
    default = stage / CONFFILE
    default.parent.mkdir(parents=True)
    shutil.copyfile(HERE / "default", default)
    files = [path for path in stage.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    control = stage / "DEBIAN"
    control.mkdir()
    text = (HERE / "control").read_text(encoding="utf-8")
    given = {"VERSION": version, "ARCHITECTURE": architecture, "SIZE": str(size), "PYTHON": PYTHON}
    for name, value in given.items():
        text = text.replace(f"@{name}@", value)
    (control / "control").write_text(text)
    (control / "conffiles").write_text(f"/{CONFFILE}\n")
    sums = (
        f"{md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(stage)}\n"
        for path in sorted(files)
    )
    (control / "md5sums").write_text("".join(sums))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / script, control / script)


def _settle(stage: Path, moment: int) -> None:
    """Give all files the modes and times that do not depend on who builds, when and where."""
    for path in [stage, *stage.rglob("*")]:
        if not path.is_symlink():
            programs = (stage / "DEBIAN", stage / LIBRARY / "bin")
            runs = path.is_dir() or (path.parent in programs and path.read_bytes()[:2] == b"#!")
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (moment, moment), follow_symlinks=False)


def _compress(path: Path) -> None:
    """Replace a file by its gzip without name and time."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    path.unlink()


def _moment() -> int:
    """Return the moment that the package is said to be of: the one given, else that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or _run("git", "-C", str(ROOT), "log", "-1", "--format=%ct"))


def _run(*command: str, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, check=False, env=environ, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{_shown(command)} failed: see above")
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    return " ".join(command[:4])


if __name__ == "__main__":
    if len(sys.argv) != 2 or shutil.which("dpkg-deb") is None:  # noqa: PLR2004 -- the program and the folder
        raise SystemExit("usage: build.py FOLDER; it needs dpkg-deb")
    print(build(Path(sys.argv[1])))
