"""What `relay init` writes for some roles, and what it leaves to the administrator; no I/O."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from relay.domain.model import Role
from relay.installing.database_users import DATABASE, OWNER, users_sql
from relay.installing.sample import PROVIDERS, Value, reads, render

CHECKS: Final = ("check", "doctor")
"""The commands that say whether a new installation is whole: without, and with a look at what it reaches."""
PARTS: Final = (Role.API, Role.WATCH, Role.PUSH)
PRIVATE, PUBLIC = "sealing-private.pem", "sealing-public.pem"
PASSWORD: Final = "database.password"
SECRET, OPEN = 0o600, 0o644
MIGRATE: Final = "migrate"
"""The folder of the user that owns the database."""
POSTGRES: Final = "postgres"
"""The folder of the administrator of PostgreSQL."""
NEEDED: Final[Mapping[str, tuple[str, int]]] = {
    "api.certificate_file": ("api.pem", OPEN),
    "api.key_file": ("api.key", SECRET),
    "apns.key_file": ("apns.p8", SECRET),
    "fcm.service_account_file": ("fcm.json", SECRET),
}
"""The files that others make: name and mode, by setting."""
VAPID: Final = "webpush.vapid_key_file"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the administrator said; what is missing becomes a blank."""

    values: Mapping[str, Value] = field(default_factory=dict)
    """Settings by "TABLE.KEY"; those of the mail server are "servers.KEY"."""
    copies: Mapping[str, tuple[str, Path]] = field(default_factory=dict)
    """Files to copy, by setting: the name of the copy, and the file."""
    providers: Sequence[str] = PROVIDERS[:2]
    server: str = "main"
    database: str = f"postgres/{DATABASE}"
    """HOST[:PORT]/NAME of PostgreSQL, for several roles."""
    runs_as: str = ""
    """The user that the relay runs as, if it is another one."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys and passwords, freshly made."""

    sealing_private: bytes
    sealing_public: bytes
    vapid_private: bytes
    vapid_public: str
    password: Callable[[], str]
    salt: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class File:
    """A file to write, or to copy."""

    path: Path
    content: bytes | Path = field(repr=False)
    mode: int = SECRET
    of_relay: bool = True
    """Whether it belongs to the user of the relay."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something left to do: a sentence, and the commands for it."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """All files of an installation, and the steps that remain, in order."""

    files: tuple[File, ...]
    steps: tuple[Step, ...]


def layout(
    folder: Path, state: Path | None, roles: Sequence[Role], answers: Answers, keys: Keys, sample: str
) -> Layout:
    """Return what to write into `folder` for the roles: all in one, or each in a folder of its own.

    `state` is the state folder: of all in one the folder itself, otherwise the one above those of the roles; None: the
    roles run elsewhere, and keep the default.
    """
    if Role.ALL in roles:
        return _single(folder, state or folder / "state", answers, keys, sample)
    return _separate(folder, state, roles, answers, keys, sample)


def _single(folder: Path, state: Path, answers: Answers, keys: Keys, sample: str) -> Layout:
    config = folder / "relay.toml"
    files, blanks, missing = _role(folder, Role.ALL, answers, {}, keys, sample)
    files += [File(state / PRIVATE, keys.sealing_private), File(state / PUBLIC, keys.sealing_public, OPEN)]
    steps = [
        *_to_fill(config, blanks),
        *_to_place(missing, answers.runs_as),
        _copy_keys([state / PRIVATE], webpush=folder / "vapid.pem" if "webpush" in answers.providers else None),
        Step(
            "Check it, and what it reaches; every fault is named with its remedy.",
            tuple(_as(answers.runs_as, f"relay {command} --config {_q(config)}") for command in CHECKS),
        ),
        _start([(Role.ALL, config)], answers.runs_as),
    ]
    return Layout(tuple(files), tuple(steps))


def _separate(
    folder: Path, state: Path | None, roles: Sequence[Role], answers: Answers, keys: Keys, sample: str
) -> Layout:
    files: list[File] = []
    passwords: dict[str, str] = {OWNER: keys.password()}
    to_fill: list[Step] = []
    missing: list[File] = []
    for role in roles:
        home, user = folder / role.value, f"relay_{role.value}"
        passwords[user] = keys.password()
        own: dict[str, Value] = _database(answers, user)
        if state is not None:
            own["relay.state_dir"] = str(state / role.value)
        if role is Role.API:
            own["sealing.public_key_file"] = PUBLIC
            if Role.WATCH not in roles:  # the key belongs to one that is there already
                missing.append(File(home / PUBLIC, b"", OPEN))
        # Without the api role here, the watch role's folder keeps its half for it.
        if (role is Role.API and Role.WATCH in roles) or (role is Role.WATCH and Role.API not in roles):
            files.append(File(home / PUBLIC, keys.sealing_public, OPEN))
        if role is Role.WATCH:
            own["sealing.private_key_file"] = PRIVATE
            files.append(File(home / PRIVATE, keys.sealing_private))
        made, blanks, absent = _role(home, role, answers, own, keys, sample)
        files += [*made, File(home / PASSWORD, f"{passwords[user]}\n".encode())]
        to_fill += _to_fill(home / "relay.toml", blanks)
        missing += absent
    owner = render(sample, Role.PUSH, _database(answers, OWNER), ()).text.split("\n\n")
    database = [part for part in owner if part.startswith(("# Written", "[database]"))]
    admin = folder / POSTGRES / "postgres.password"
    users = folder / POSTGRES / "users.sql"
    config = folder / MIGRATE / "relay.toml"
    files += [
        File(config, ("\n\n".join(database).replace(" for the role push", " for `relay migrate`") + "\n").encode()),
        File(folder / MIGRATE / PASSWORD, f"{passwords[OWNER]}\n".encode()),
        # PostgreSQL's image reads both as a user of its own. Their folder is made for them, and so it is closed even if
        # the one above was there before, as Docker makes it.
        File(users, users_sql(passwords, keys.salt).encode(), OPEN, of_relay=False),
        File(admin, f"{keys.password()}\n".encode(), 0o444, of_relay=False),
    ]
    configs = [(role, folder / role.value / "relay.toml") for role in roles]
    precious = [folder / role.value / PRIVATE for role in roles if role is Role.WATCH]
    has_vapid = Role.PUSH in roles and "webpush" in answers.providers
    steps = [
        *to_fill,
        *_to_place(missing, answers.runs_as),
        *(
            [_copy_keys(precious, webpush=folder / "push/vapid.pem" if has_vapid else None)]
            if precious or has_vapid
            else []
        ),
        Step(
            "Make the database and its users, as an administrator of PostgreSQL (as root, with"
            " `runuser -u postgres --` before psql). The container `postgres` of"
            " docker-compose.yml does it by itself when it starts for the first time.",
            (f"psql --set ON_ERROR_STOP=1 postgres < {_q(users)}",),
        ),
        Step(
            "Make the tables and give each role its rights, now and after every upgrade.",
            (_as(answers.runs_as, f"relay migrate --grants --config {_q(config)}"),),
        ),
        Step(
            "Check each role, and on its host what it reaches; every fault is named with its remedy.",
            tuple(
                _as(answers.runs_as, f"relay {command} --role {role.value} --config {_q(path)}")
                for role, path in configs
                for command in CHECKS
            ),
        ),
        _start(configs, answers.runs_as),
    ]
    return Layout(tuple(files), tuple(steps))


def _role(
    home: Path, role: Role, answers: Answers, own: Mapping[str, Value], keys: Keys, sample: str
) -> tuple[list[File], tuple[str, ...], list[File]]:
    """Return the files of one role, the blanks in its relay.toml, and the files that somebody must place there."""
    files: list[File] = []
    missing: list[File] = []
    values: dict[str, Value] = {**answers.values, **own}
    for key, (name, source) in answers.copies.items():
        if reads(role, key) and _used(key, answers):
            values[key] = name
            if home / name not in [file.path for file in files]:
                files.append(File(home / name, source, _mode(key, name, answers)))
    for key, (name, mode) in NEEDED.items():
        if key not in answers.copies and reads(role, key) and _used(key, answers):
            values[key] = name
            missing.append(File(home / name, b"", mode))
    if "webpush" in answers.providers and VAPID not in answers.copies:
        values[VAPID] = "vapid.pem"
        values["webpush.public_key"] = keys.vapid_public
        if reads(role, VAPID):
            files.append(File(home / "vapid.pem", keys.vapid_private))
    rendered = render(sample, role, values, answers.providers, answers.server)
    files.insert(0, File(home / "relay.toml", rendered.text.encode()))
    return files, rendered.blanks, missing


def _mode(key: str, name: str, answers: Answers) -> int:
    """Return the mode of a copy: certificates are for everybody, unless their key is in the same file."""
    if key.endswith("ca_file"):
        return OPEN
    with_key = answers.copies.get("api.key_file", ("", Path()))[0] == name
    return OPEN if key == "api.certificate_file" and not with_key else SECRET


def _used(key: str, answers: Answers) -> bool:
    """Return whether a setting is none of a provider that is not used."""
    table = key.partition(".")[0]
    return table not in PROVIDERS or table in answers.providers


def _database(answers: Answers, user: str) -> dict[str, Value]:
    return {"database.url": f"postgresql://{user}@{answers.database}", "database.password_file": PASSWORD}


def _to_fill(config: Path, blanks: Sequence[str]) -> list[Step]:
    if not blanks:
        return []
    return [Step(f"Fill in, in {config}: {', '.join(blanks)}.", (f"sensible-editor {_q(config)}",))]


def _to_place(missing: Sequence[File], user: str) -> list[Step]:
    """Return how to get the files that others make, and where to put them."""
    owner = f"-o {user} " if user else ""
    paths = {file.path.name: file.path for file in missing}
    install = {
        file.path.name: f"install {owner}-m {file.mode:04o} YOUR-{file.path.name} {_q(file.path)}" for file in missing
    }
    steps = []
    if {"api.pem", "api.key"} <= paths.keys():
        key = _q(paths["api.key"])
        commands = [
            f"(umask 077; openssl req -new -noenc -keyout {key} -out api.csr {_REQUEST})",
            *([f"chown {user} {key}"] if user else []),
            install.pop("api.pem"),
        ]
        del install["api.key"]
        text = (
            "Have the CA that phones trust sign a certificate for the host that apps know; install it with its chain."
        )
        steps.append(Step(text, tuple(commands)))
    return [*steps, *(Step(f"Get {_SOURCES[name]}.", (command,)) for name, command in install.items())]


_REQUEST: Final = (
    "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=relay.example.com"
    " -addext subjectAltName=DNS:relay.example.com"
)
_SOURCES: Final = {
    "api.pem": "the TLS certificate of the API, with its chain, from the CA that phones trust",
    "api.key": "the key of the API's certificate, as PEM without a password",
    PUBLIC: "the public sealing key from the folder of the watch role",
    "apns.p8": "the key for APNs from developer.apple.com: Certificates, Identifiers & Profiles, Keys",
    "fcm.json": "the key of a service account from the Firebase console: Project settings, Service accounts",
}


def _copy_keys(paths: Sequence[Path], *, webpush: Path | None) -> Step:
    named = " and ".join(str(path) for path in [*paths, *([webpush] if webpush else [])])
    return Step(f"Keep a copy of {named} in a safe place: without a key its users must log in or subscribe again.")


def _start(configs: Sequence[tuple[Role, Path]], user: str) -> Step:
    served = tuple(
        _as(user, f"relay serve{'' if role is Role.ALL else f' --role {role.value}'} --config {_q(path)}")
        for role, path in configs
    )
    units = " ".join("push-relay" if role is Role.ALL else f"push-relay@{role.value}" for role, _ in configs)
    if user in ("", "push-relay") and all(path.parts[:3] == ("/", "etc", "push-relay") for _, path in configs):
        return Step("Start it.", (f"systemctl enable --now {units}",))
    return Step("Start it, each in a terminal or under a service manager.", served)


def _as(user: str, command: str) -> str:
    return f"runuser -u {user} -- {command}" if user else command


def _q(path: Path) -> str:
    return shlex.quote(str(path))
