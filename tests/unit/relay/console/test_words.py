from datetime import timedelta

import pytest

from relay.console.words import ago, code, count, duration, number, size, stamp
from tests.fakes.ops import NOON


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0234, "23 ms"),
        (1, "1 s"),
        (1.44, "1.4 s"),
        (63, "63 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.3, "just now"), (5, "5 s ago"), (-90, "in 90 s"), (7300, "2 h ago")])
def test_a_moment_is_told_by_its_distance(seconds: float, text: str) -> None:
    moment = NOON - timedelta(seconds=seconds)

    assert ago(moment, NOON) == text
    assert ago(moment.isoformat(), NOON) == text


def test_no_moment_has_no_distance() -> None:
    assert ago(None, NOON) == ""


def test_moments_of_documents_are_read() -> None:
    assert stamp("2026-11-24T12:00:00Z") == stamp(NOON) == "2026-11-24 12:00:00"
    assert stamp("2026-11-24T13:00:00+01:00") == "2026-11-24 12:00:00"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3.0, "3"), (0.04, "0.04"), (0.5, "0.5"), (9.96, "10.0"), (12.4, "12"), (12345, "12,345")],
)
def test_a_number_is_short(value: float, text: str) -> None:
    assert number(value) == text


def test_things_are_counted_with_their_name() -> None:
    counted = [count(value, "entry", "entries") for value in (0, 1, 2, 1200)]

    assert counted == ["0 entries", "1 entry", "2 entries", "1,200 entries"]


@pytest.mark.parametrize(
    ("octets", "text"), [(12, "12 bytes"), (15_300, "15 kB"), (2_500_000, "2.5 MB"), (3_000_000_000, "3 GB")]
)
def test_a_size_is_short(octets: int, text: str) -> None:
    assert size(octets) == text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("run `relay explain <ann>` now", "run <code>relay explain &lt;ann&gt;</code> now"),
        ("<script>", "&lt;script&gt;"),
        ("`half", "`half"),
        ("", ""),
    ],
)
def test_a_command_is_shown_as_code_and_nothing_else_is_markup(text: str, html: str) -> None:
    assert code(text) == html
