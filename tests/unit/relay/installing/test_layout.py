import tomllib
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from relay.domain.model import Role
from relay.installing.layout import PARTS, Answers, File, Keys, Layout, layout
from relay.installing.shipped import SAMPLE, read
from relay.store.privileges import ROLES

FOLDER = Path("/srv/relay")
GIVEN = Answers(
    {"servers.url": "https://mail.example.com", "apns.topics": ["com.example.mail"], "fcm.apps": ["com.example.mail"]},
    {
        "apns.key_file": ("apns.p8", Path("/in/AuthKey.p8")),
        "api.certificate_file": ("api.pem", Path("/in/c.pem")),
        "api.key_file": ("api.key", Path("/in/c.key")),
        "servers.ca_file": ("company-ca.pem", Path("/in/ca.pem")),
    },
    ("apns", "fcm", "webpush"),
)


def made(
    roles: Sequence[Role] = (Role.ALL,), answers: Answers = GIVEN, folder: Path = FOLDER, state: Path | None = None
) -> Layout:
    words = count(1)
    keys = Keys(b"private", b"public", b"vapid", "BVAPID", lambda: f"word-{next(words)}", lambda: bytes(16))
    return layout(folder, state, roles, answers, keys, read(SAMPLE))


def files(layout: Layout, folder: Path = FOLDER) -> dict[str, File]:
    return {str(file.path.relative_to(folder)): file for file in layout.files}


def settings(layout: Layout, name: str) -> dict[str, Any]:
    content = files(layout)[name].content
    assert isinstance(content, bytes)
    return tomllib.loads(content.decode())


def said(layout: Layout) -> str:
    return "\n".join(line for step in layout.steps for line in (step.text, *step.commands))


def test_one_process_has_one_folder_with_its_keys() -> None:
    found = files(made())

    assert {name: file.mode for name, file in found.items()} == {
        "relay.toml": 0o600,
        "apns.p8": 0o600,
        "api.pem": 0o644,
        "api.key": 0o600,
        "company-ca.pem": 0o644,
        "vapid.pem": 0o600,
        "state/sealing-private.pem": 0o600,
        "state/sealing-public.pem": 0o644,
    }
    assert found["apns.p8"].content == Path("/in/AuthKey.p8")


def test_the_state_may_be_elsewhere() -> None:
    paths = [file.path for file in made(state=Path("/var/lib/relay")).files]

    assert Path("/var/lib/relay/sealing-private.pem") in paths


def test_each_role_has_only_what_it_may_have() -> None:
    found = set(files(made(PARTS)))

    assert found == {
        *("api/relay.toml", "api/sealing-public.pem", "api/api.pem", "api/api.key", "api/company-ca.pem"),
        *("watch/relay.toml", "watch/sealing-private.pem", "watch/company-ca.pem"),
        *("push/relay.toml", "push/apns.p8", "push/vapid.pem"),
        *("api/database.password", "watch/database.password", "push/database.password"),
        *("migrate/relay.toml", "migrate/database.password", "postgres/users.sql", "postgres/postgres.password"),
    }


def test_each_role_logs_in_to_postgresql_as_a_user_of_its_own() -> None:
    layout = made(PARTS, replace(GIVEN, database="db.example.com/relay"))
    words = {files(layout)[f"{role.value}/database.password"].content for role in PARTS}

    assert len(words) == 3
    for role in PARTS:
        database = settings(layout, f"{role.value}/relay.toml")["database"]
        assert database["url"] == f"postgresql://relay_{role.value}@db.example.com/relay"
        assert f"relay_{role.value}" in ROLES
    assert settings(layout, "migrate/relay.toml") == {
        "database": {"url": "postgresql://relay@db.example.com/relay", "password_file": "database.password"}
    }


def test_only_some_roles_may_be_asked_for() -> None:
    found = files(made([Role.WATCH]))

    assert not [name for name in found if name.startswith(("api", "push"))]


def test_the_halves_of_the_sealing_key_stay_one_pair_if_a_role_is_written_alone() -> None:
    watch, api = made([Role.WATCH]), made([Role.API])

    assert {"watch/sealing-private.pem", "watch/sealing-public.pem"} <= files(watch).keys()
    assert "api/sealing-public.pem" not in files(api)
    assert "Get the public sealing key from the folder of the watch role." in said(api)


def test_under_etc_each_role_has_a_state_folder_of_its_own() -> None:
    layout = made(PARTS, state=Path("/var/lib/push-relay"))

    assert settings(layout, "push/relay.toml")["relay"] == {"state_dir": "/var/lib/push-relay/push"}


def test_the_api_role_gets_the_public_half_of_the_vapid_key() -> None:
    layout = made(PARTS)

    assert settings(layout, "api/relay.toml")["webpush"] == {"public_key": "BVAPID"}
    assert settings(layout, "push/relay.toml")["webpush"]["vapid_key_file"] == "vapid.pem"


def test_a_vapid_key_that_is_given_is_copied() -> None:
    given = replace(GIVEN, copies={"webpush.vapid_key_file": ("vapid.pem", Path("/in/vapid.pem"))})

    assert files(made(answers=given))["vapid.pem"].content == Path("/in/vapid.pem")


def test_a_certificate_with_its_key_in_one_file_is_secret() -> None:
    both = ("api.pem", Path("/in/both.pem"))
    given = replace(GIVEN, copies={"api.certificate_file": both, "api.key_file": both})

    assert files(made(answers=given))["api.pem"].mode == 0o600


def test_files_of_a_provider_that_is_not_used_are_not_asked_for() -> None:
    layout = made(answers=replace(GIVEN, providers=("fcm",)))

    assert "apns.p8" not in files(layout)
    assert "apns.p8" not in said(layout)
    assert "fcm.json" in said(layout)


def test_what_is_left_to_do_is_said_in_order_with_commands() -> None:
    steps = made(answers=Answers(), folder=Path("/etc/push-relay")).steps

    assert [step.text.split()[0] for step in steps] == ["Fill", "Have", "Get", "Get", "Keep", "Check", "Start"]
    assert "servers.main.url, apns.key_id, apns.team_id, apns.topics, fcm.apps" in steps[0].text
    assert any("openssl req" in command for command in steps[1].commands)
    assert steps[-1].commands == ("systemctl enable --now push-relay",)


def test_roles_are_started_as_instances_of_one_service() -> None:
    steps = made(PARTS, folder=Path("/etc/push-relay")).steps

    assert steps[-1].commands == ("systemctl enable --now push-relay@api push-relay@watch push-relay@push",)
    assert ("relay migrate --grants --config /etc/push-relay/migrate/relay.toml",) in [step.commands for step in steps]


def test_elsewhere_commands_start_it() -> None:
    assert made().steps[-1].commands == ("relay serve --config /srv/relay/relay.toml",)
    assert made([Role.API]).steps[-1].commands == ("relay serve --role api --config /srv/relay/api/relay.toml",)


def test_a_missing_certificate_alone_is_asked_for() -> None:
    copies = {name: copy for name, copy in GIVEN.copies.items() if name != "api.certificate_file"}
    text = said(made(answers=replace(GIVEN, copies=copies)))

    assert "install -m 0644 YOUR-api.pem /srv/relay/api.pem" in text
    assert "openssl" not in text


def test_commands_run_as_the_user_of_the_relay() -> None:
    text = said(made(answers=Answers(runs_as="push-relay")))

    assert "runuser -u push-relay -- relay check" in text
    assert "chown push-relay /srv/relay/api.key" in text
    assert "install -o push-relay -m 0600" in text


def test_a_copy_of_the_keys_is_asked_for() -> None:
    assert "Keep a copy of /srv/relay/watch/sealing-private.pem and /srv/relay/push/vapid.pem" in said(made(PARTS))
    assert "Keep a copy" not in said(made([Role.API]))
    assert "Keep a copy of /srv/relay/push/vapid.pem" in said(made([Role.PUSH]))


def test_no_secret_is_shown() -> None:
    assert "private" not in repr(made().files).replace("sealing-private", "")


def test_what_everybody_may_read_is_in_a_folder_that_is_made_for_it() -> None:
    """Docker makes the folder above before `relay init` runs, open to everybody on the host."""
    others = [file.path for file in made(PARTS).files if not file.of_relay]

    assert {path.parent for path in others} == {FOLDER / "postgres"}
