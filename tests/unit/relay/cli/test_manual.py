import subprocess
from typing import Annotated, Final

import pytest
import typer
from typer.testing import CliRunner

from relay.cli.main import cli
from relay.cli.manual import Entry, bash, fish, man_page, tree, zsh

ROOT: Final = tree(typer.main.get_command(cli), "relay")


def completed(*words: str) -> set[str]:
    """Return what bash offers after some words, the last of which is being typed."""
    given = " ".join(f"'{word}'" for word in words)
    script = f'{bash(ROOT)}\nCOMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _relay; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(("bash", "-euc", script), capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def named(place: str) -> Entry:
    return next(entry for entry in ROOT.all() if entry.place == place)


def test_bash_completes_commands_options_and_values() -> None:
    assert {"serve", "init", "audit", "--version"} <= completed("relay", "")
    assert completed("relay", "audit", "v") == {"verify"}
    assert completed("relay", "serve", "--ro") == {"--role"}
    assert completed("relay", "serve", "--role", "") == {"all", "api", "watch", "push"}
    assert completed("relay", "serve", "--config", "relay", "--c") == {"--config"}


def test_the_manual_page_has_every_command_and_option() -> None:
    page = man_page(ROOT, "1.2.3")
    read = page.replace("\\-", "-")

    assert page.startswith('.TH RELAY 1 "" "push-relay 1.2.3"')
    for entry in ROOT.all():
        if not entry.children:
            assert f".SS {entry.place}" in read
        for option in entry.options:
            assert all(f"\\fB{name}\\fR" in read for name in option.names)


def test_the_manual_page_has_all_that_a_command_says_of_itself() -> None:
    page = man_page(ROOT, "1.2.3")

    assert "Exit status: 0 all is well, 1 something must change, 2 the configuration is faulty." in page
    assert named("relay doctor").help.endswith("changes nothing.")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("doctor", "1 something must change, 2 the configuration is faulty."),
        ("migrate", "It reads the table [database] alone"),
    ],
)
def test_help_keeps_no_line_ends_of_the_source_and_takes_no_brackets_for_markup(command: str, said: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})

    assert said in shown.output


def test_texts_are_no_macros_of_groff() -> None:
    entry = Entry(("relay",), "It's `bold` \\ so-so.", (("[FILE]", "'quoted'"), ("X", ".start")), (), ())
    page = man_page(Entry(("relay",), "", (), (), (Entry(("relay", "x"), *_rest(entry)),)), "1")

    assert "It\\(aqs \\fBbold\\fR \\e so\\-so." in page
    assert "\n\\&.start\n" in page


def _rest(entry: Entry) -> tuple[str, tuple[tuple[str, str], ...], tuple[()], tuple[()]]:
    return entry.help, entry.arguments, (), ()


@pytest.mark.parametrize("make", [zsh, fish], ids=["zsh", "fish"])
def test_the_other_shells_know_every_command_and_the_values_of_options(make: object) -> None:
    assert callable(make)
    script = make(ROOT)

    assert all(entry.path[-1] in script for entry in ROOT.all())
    assert "all api watch push" in script


def test_an_apostrophe_ends_no_text_of_fish() -> None:
    entry = Entry(("relay",), "", (), (), (Entry(("relay", "x"), "a server's \\ word", (), (), ()),))

    assert "-d 'a server\\'s \\\\ word'" in fish(entry)


def test_arguments_say_whether_they_may_be_left_out() -> None:
    assert [name for name, _ in named("relay explain").arguments] == ["NAME"]
    assert [name for name, _ in named("relay init").arguments] == ["[FOLDER]"]
    assert [name for name, _ in named("relay audit verify").arguments] == ["[LOGS]..."]


def test_options_say_what_follows_them() -> None:
    values = {option.names[0]: option.value for option in named("relay sandbox").options}

    assert (values["--folder"], values["--eas"], values["--host"]) == ("PATH", "NUMBER", "TEXT")
    assert {option.names[0]: option.value for option in named("relay migrate").options}["--grants"] == ""


def test_what_is_hidden_stays_hidden() -> None:
    program = typer.Typer()

    @program.command(hidden=True)
    def gone() -> None: ...

    @program.command()
    def here(old: Annotated[bool, typer.Option(hidden=True)] = False) -> None:
        del old

    root = tree(typer.main.get_command(program), "relay")

    assert [(entry.place, entry.options) for entry in root.all()][1:] == [("relay here", ())]
