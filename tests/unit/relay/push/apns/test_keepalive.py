import pytest

from relay.push.apns.keepalive import KEEPALIVE_TIMINGS, Doubt, Silence

ASK, LOST, NONE = Doubt.ASK, Doubt.LOST, Doubt.NONE


@pytest.mark.parametrize(
    ("events", "doubts"),
    [
        # (moment, what happened: h heard, a asked, w look while requests wait, i look while none do)
        ([(29.9, "i"), (30.0, "i"), (39.9, "i"), (40.0, "i")], [NONE, ASK, NONE, LOST]),
        ([(0.0, "a"), (4.9, "w"), (5.0, "w"), (14.9, "w"), (15.0, "w")], [NONE, ASK, NONE, LOST]),
        ([(29.0, "h"), (58.0, "i"), (59.0, "i")], [NONE, ASK]),
        # a sign of life ends the doubt, be it a pong or an answer
        ([(30.0, "i"), (39.0, "h"), (41.0, "i"), (69.0, "i")], [ASK, NONE, ASK]),
        # nobody waits long for what was only just asked
        ([(20.0, "a"), (21.0, "w"), (24.9, "w"), (25.0, "w")], [NONE, NONE, ASK]),
        # a server that answers others is not silent
        ([(0.0, "a"), (4.0, "h"), (8.0, "w"), (9.0, "w")], [NONE, ASK]),
    ],
)
def test_silence_is_asked_about_once_and_ends_in_time(events: list[tuple[float, str]], doubts: list[Doubt]) -> None:
    silence, seen = Silence(KEEPALIVE_TIMINGS, 0.0), []
    for moment, kind in events:
        match kind:
            case "h":
                silence.heard(moment)
            case "a":
                silence.asked(moment)
            case _:
                seen.append(silence.look(moment, waiting=kind == "w"))

    assert seen == doubts


def test_a_silent_connection_is_given_up_before_a_push_has_waited_for_its_time_limit() -> None:
    assert (
        KEEPALIVE_TIMINGS.waiting + KEEPALIVE_TIMINGS.pong + 2 * KEEPALIVE_TIMINGS.tick < 20.0
    )  # ApnsConfig.time_limit: the repetition needs time, too
