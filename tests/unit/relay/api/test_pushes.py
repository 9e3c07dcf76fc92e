import pytest

from relay.api.pushes import MODELS, bodies, examples
from relay.domain.model import Mark, Mode, Platform
from relay.domain.reasons import Cause


@pytest.mark.parametrize("platform", Platform)
def test_a_body_of_every_mark_and_mode_is_made(platform: Platform) -> None:
    names = [name for name, _ in bodies(platform)]

    assert len(names) == len(set(names)) == len(Mark) * len(Mode) * 2 + len(Cause)
    assert platform in MODELS


def test_the_examples_are_what_the_templates_make() -> None:
    shown = examples(Platform.FCM)

    assert shown["email"]["kind"] == "new-items"
    assert (shown["attention"]["kind"], shown["attention"]["reason"]) == ("attention", "credential")
