from datetime import timedelta

import pytest

from relay.console.plots import HEIGHT, WIDTH, Value, plot, scale
from relay.console.words import number
from tests.fakes.ops import NOON


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (3, 5), (7, 10), (10, 10), (42, 50), (1001, 2000)]
)
def test_a_scale_ends_at_a_round_number(highest: float, top: float) -> None:
    assert scale(highest) == pytest.approx(top)


def of(*values: Value, least: float = 0.0) -> tuple[str, str]:
    """Return the path and the summary of a plot with one line."""
    times = [NOON + timedelta(seconds=15 * each) for each in range(len(values))]
    drawn = plot("Pings", times, [("held", values)], number, least)
    return drawn.lines[0].path, drawn.summary


def test_a_line_goes_from_side_to_side_and_its_zero_is_at_the_bottom() -> None:
    path, summary = of(0, 10, 5)

    assert path == f"M0.0 {HEIGHT}h0.1L{WIDTH / 2} 0.0L{WIDTH} {HEIGHT / 2}"
    assert summary == "Pings: held: now 5, least 0, most 10"


def test_a_line_has_a_gap_where_nothing_was_measured() -> None:
    assert of(10, None, 10)[0] == f"M0.0 0.0h0.1M{WIDTH} 0.0h0.1"


def test_nothing_measured_is_no_line() -> None:
    assert of(None) == ("", "Pings: held: nothing measured yet")
    assert of() == ("", "Pings: held: nothing measured yet")


def test_the_scale_shows_small_numbers_as_small() -> None:
    assert of(1, 1, least=10)[0] == f"M0.0 {HEIGHT * 0.9}h0.1L{WIDTH} {HEIGHT * 0.9}"


def test_a_plot_names_its_span_and_its_scale() -> None:
    times = [NOON, NOON + timedelta(hours=1)]

    drawn = plot("Pings", times, [("held", [3, 4]), ("lost", [1, None])], number)

    assert (drawn.since, drawn.until, drawn.top, drawn.middle) == (times[0], times[1], "5", "2.5")
    assert [line.last for line in drawn.lines] == ["4", "\N{EN DASH}"]
    assert plot("Pings", [], [], number).since is None
