"""The tests of whole watches once more, over HTTP/2."""

from collections.abc import Iterator

import pytest

from tests.integration import test_eas_watch
from tests.integration.eas_world import OVER_HTTP_2

pytestmark = pytest.mark.slow  # `test_eas_watch.py` has a quick one

ONLY_HTTP_1_1 = (
    "test_a_kept_connection_that_was_closed_without_a_word_costs_no_wait"  # over HTTP/2 a cut ends its stream
)
globals().update(
    {name: test for name, test in vars(test_eas_watch).items() if name.startswith("test_") and name != ONLY_HTTP_1_1}
)


@pytest.fixture(autouse=True)
def over_http_2() -> Iterator[None]:
    token = OVER_HTTP_2.set(True)
    yield
    OVER_HTTP_2.reset(token)
