from relay.domain.outcome import Reach, RetryLater
from relay.push.egress.leaving import AGAIN, ROOM, Unwritable, held


def test_a_push_that_cannot_be_logged_was_not_tried_and_comes_again_soon() -> None:
    outcome = held(Unwritable("No space left on device"))

    assert outcome == RetryLater("egress-log: No space left on device", AGAIN, ROOM, reach=Reach.HERE)
