import tomllib

import pytest

from relay.domain.model import Role
from relay.installing.sample import FILL_IN, PROVIDERS, reads, render, toml
from relay.installing.shipped import SAMPLE, read

TEXT = """\
# Head.

[relay]
# Where the state is.
#state_dir = "state"

# One table for each mail server; the name (here "main") shows.
[servers.main]
# Always https://.
url = "https://mail.example.com"
# May be left out.
domains = ["example.com"]

[apns]
# Either this.
key_file = "apns.p8"
# Bundle ids.
topics = ["com.example.mail"]
# The end.

# More of them.
#[apns.accounts.other]
#key_file = "other.p8"

[push]
#coalesce_seconds = 2.0
"""


def test_a_set_value_takes_the_place_of_the_example() -> None:
    rendered = render(TEXT, Role.ALL, {"servers.url": "https://a.example.com", "relay.state_dir": "/s"}, ["apns"])

    assert tomllib.loads(rendered.text)["servers"]["main"] == {"url": "https://a.example.com"}
    assert 'state_dir = "/s"' in rendered.text.splitlines()


def test_what_is_not_known_stays_a_comment_that_says_so() -> None:
    rendered = render(TEXT, Role.ALL, {"apns.key_file": "apns.p8"}, ["apns"])

    assert rendered.blanks == ("servers.main.url", "apns.topics")
    assert f'{FILL_IN}\n#url = "https://mail.example.com"' in rendered.text
    assert '#domains = ["example.com"]' in rendered.text


def test_a_table_that_is_a_comment_begins_when_one_of_its_keys_is_set() -> None:
    text = f'{TEXT}\n# Off.\n#[webapp]\n#enabled = false\n#title = "Mail"\n'

    with_it = render(text, Role.ALL, {"webapp.enabled": True}, ["apns"])
    without = render(text, Role.ALL, {}, ["apns"])

    assert tomllib.loads(with_it.text)["webapp"] == {"enabled": True}
    assert "webapp" not in tomllib.loads(without.text)
    assert "\n#[webapp]\n" in without.text


def test_a_server_may_have_another_name() -> None:
    rendered = render(TEXT, Role.ALL, {}, ["apns"], server="east")

    assert '(here "east")' in rendered.text
    assert "\n[servers.east]\n" in rendered.text
    assert "servers.east.url" in rendered.blanks


def test_the_table_of_a_provider_that_is_not_used_is_left_out() -> None:
    assert "apns" not in render(TEXT, Role.ALL, {}, []).text


def test_a_role_gets_the_tables_and_keys_that_it_reads_and_their_comments() -> None:
    text = render(TEXT, Role.API, {"apns.topics": ["a"], "apns.key_file": "k"}, ["apns"]).text

    assert text.startswith("# Written by `relay init` for the role api.\n# Head.")
    assert 'Bundle ids.\ntopics = ["a"]\n# The end.' in text
    assert not [word for word in ("key_file", "Either this", "accounts", "[push]") if word in text]


def test_the_push_role_gets_accounts_and_no_server() -> None:
    text = render(TEXT, Role.PUSH, {}, ["apns"]).text

    assert "#[apns.accounts.other]" in text
    assert "servers" not in text


def test_the_watch_role_gets_nothing_of_providers() -> None:
    text = render(TEXT, Role.WATCH, {}, ["apns"]).text

    assert "apns" not in text
    assert "[servers.main]" in text


def test_a_paragraph_without_a_table_is_a_fault_of_the_sample() -> None:
    with pytest.raises(ValueError, match="no table"):
        render("# Head.\n\n# Lost.", Role.ALL, {}, [])


@pytest.mark.parametrize(
    ("role", "key", "read"),
    [
        (Role.ALL, "anything.at_all", True),
        (Role.API, "sealing.public_key_file", True),
        (Role.API, "sealing.private_key_file", False),
        (Role.API, "webpush.vapid_key_file", False),
        (Role.PUSH, "webpush.vapid_key_file", True),
        (Role.PUSH, "servers.ca_file", False),
        (Role.PUSH, "sealing.private_key_file", False),
        (Role.WATCH, "sealing.private_key_file", True),
        (Role.WATCH, "api.key_file", False),
    ],
)
def test_a_role_may_have_what_the_design_gives_it(role: Role, key: str, read: bool) -> None:
    assert reads(role, key) is read


@pytest.mark.parametrize("value", ['a "b" \\ \x7f\u00fc', ["a", "b"], True, 1.5, 7])
def test_values_are_written_as_toml_reads_them(value: str | list[str] | float) -> None:
    assert tomllib.loads(f"key = {toml(value)}")["key"] == value


@pytest.mark.parametrize("role", list(Role))
def test_the_shipped_sample_gives_each_role_a_file_that_is_toml(role: Role) -> None:
    rendered = render(read(SAMPLE), role, {}, PROVIDERS)

    tomllib.loads(rendered.text)
    assert bool(rendered.blanks) is (role is not Role.WATCH) or rendered.blanks == ("servers.main.url",)
