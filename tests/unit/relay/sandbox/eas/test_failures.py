from relay.sandbox.eas.failures import AnswerHttp, AnswerStatus, Cut, FailurePlan, FailureScript


def test_nothing_fails_without_a_plan() -> None:
    assert FailureScript().take("ann", "Sync") is None


def test_a_plan_is_used_up() -> None:
    script = FailureScript()
    script.add("ann", FailurePlan(Cut(), "Sync", times=2))

    assert [script.take("ann", "Sync") for _ in range(3)] == [Cut(), Cut(), None]


def test_a_plan_is_for_its_user_and_its_command_only() -> None:
    script = FailureScript()
    script.add("ann", FailurePlan(Cut(), "Sync"))

    assert script.take("ben", "Sync") is None
    assert script.take("ann", "Ping") is None
    assert script.take("ann", "Sync") == Cut()


def test_a_plan_without_user_and_command_is_for_all() -> None:
    script = FailureScript()
    script.add(None, FailurePlan(AnswerHttp(500), times=2))

    assert script.take("ben", "OPTIONS") == AnswerHttp(500)
    assert script.take("", "") == AnswerHttp(500)


def test_the_plan_added_first_is_used_first() -> None:
    script = FailureScript()
    script.add(None, FailurePlan(AnswerStatus(5)))
    script.add("ann", FailurePlan(Cut()))

    assert [script.take("ann", "Sync") for _ in range(2)] == [AnswerStatus(5), Cut()]


def test_clear_removes_all_plans() -> None:
    script = FailureScript()
    script.add(None, FailurePlan(Cut(), times=9))
    script.clear()

    assert script.take("ann", "Sync") is None
