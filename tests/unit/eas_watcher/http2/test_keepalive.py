import pytest

from eas_watcher.http2.keepalive import KEEPALIVE_TIMINGS, KeepaliveStep, Silence

PING, GIVE_UP, NONE = KeepaliveStep.PING, KeepaliveStep.GIVE_UP, KeepaliveStep.NONE


@pytest.mark.parametrize(
    ("events", "steps"),
    [
        # (moment, what happens: h bytes come, a a request is sent, w check while requests wait, i check while none do)
        ([(29.9, "i"), (30.0, "i"), (39.9, "i"), (40.0, "i")], [NONE, PING, NONE, GIVE_UP]),
        ([(0.0, "a"), (4.9, "w"), (5.0, "w"), (14.9, "w"), (15.0, "w")], [NONE, PING, NONE, GIVE_UP]),
        ([(29.0, "h"), (58.0, "i"), (59.0, "i")], [NONE, PING]),
        # any byte of the server counts, be it a pong or an answer
        ([(30.0, "i"), (39.0, "h"), (41.0, "i"), (69.0, "i")], [PING, NONE, PING]),
        # the wait begins with the request, however long the server was silent before
        ([(20.0, "a"), (21.0, "w"), (24.9, "w"), (25.0, "w")], [NONE, NONE, PING]),
        # a server that answers other requests is not silent
        ([(0.0, "a"), (4.0, "h"), (8.0, "w"), (9.0, "w")], [NONE, PING]),
    ],
)
def test_a_silent_server_gets_one_ping_and_time_to_answer(
    events: list[tuple[float, str]], steps: list[KeepaliveStep]
) -> None:
    silence, seen = Silence(KEEPALIVE_TIMINGS, 0.0), []
    for moment, kind in events:
        match kind:
            case "h":
                silence.heard(moment)
            case "a":
                silence.asked(moment)
            case _:
                seen.append(silence.check(moment, waiting=kind == "w"))

    assert seen == steps


def test_a_dead_connection_is_found_out_before_a_push_reaches_its_time_limit() -> None:
    assert (
        KEEPALIVE_TIMINGS.waiting + KEEPALIVE_TIMINGS.pong + 2 * KEEPALIVE_TIMINGS.tick < 20.0
    )  # ApnsConfig.time_limit: the repetition needs time too
