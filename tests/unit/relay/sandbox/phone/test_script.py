import re
from pathlib import Path
from typing import Final

import pytest

from relay.sandbox.phone.script import (
    COMMANDS,
    EXPECTATIONS,
    Command,
    Expectation,
    ScriptFault,
    read_duration,
    read_expectation,
    read_line,
    read_script,
)


def test_a_script_is_one_command_a_line() -> None:
    text = """
    # a comment
    register background   # and one behind
    deliver
    wait 3d
    expect banner "New mail" within 5s
    """

    assert read_script(text) == [
        Command("register", ("background",)),
        Command("deliver"),
        Command("wait", ("3d",)),
        Command("expect", ("banner", "New mail", "within", "5s")),
    ]


def test_all_faulty_lines_are_named() -> None:
    with pytest.raises(ScriptFault, match=r"line 1: jump is no command.*; line 3: wait 30s"):
        read_script("jump\noff\nwait")


@pytest.mark.parametrize(
    "line",
    [
        'say "',
        "off now",
        "wait soon",
        "pause 3w",
        "register loud",
        "outage moon",
        "outage mail begin",
        "expect",
        "expect rain",
        "expect banners many",
        "expect state",
        "expect nothing for ever",
    ],
)
def test_a_faulty_line_is_refused(line: str) -> None:
    with pytest.raises(ScriptFault):
        read_line(line)


@pytest.mark.parametrize("line", ["", "   ", "# off"])
def test_a_line_may_be_empty(line: str) -> None:
    assert read_line(line) is None


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1.5m", 90), ("2h", 7200), ("3d", 259_200)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    ("words", "expectation"),
    [
        ("banner", Expectation("banner", "", 20)),
        ("banner New mail within 2s", Expectation("banner", "New mail", 2)),
        ("banners 2", Expectation("banners", "2", 20)),
        ("state active", Expectation("state", "active", 20)),
        ("nothing", Expectation("nothing", "", 3)),
        ("nothing for 1m", Expectation("nothing", "", 60)),
    ],
)
def test_an_expectation_has_a_subject_words_and_a_time(words: str, expectation: Expectation) -> None:
    assert read_expectation(words.split()) == expectation


def test_every_command_says_what_it_does() -> None:
    assert all(usage.strip() and least <= most for least, most, usage in COMMANDS.values())


PAGE: Final = (Path(__file__).parents[5] / "docs/sandbox.md").read_text(encoding="utf-8")


def test_every_command_and_expectation_is_documented() -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", PAGE[PAGE.index("## A phone") :]))

    assert [word for word in (*COMMANDS, *EXPECTATIONS) if not re.search(rf"(?<![\w-]){word}(?![\w-])", code)] == []


def test_the_script_of_the_page_is_one() -> None:
    (script,) = re.findall(r"^```\n(register\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

    assert len(read_script(script)) == 8
