import pytest
from push_relay_client import Problem, Refused


def test_a_problem_document_is_read() -> None:
    document = {
        "status": 400,
        "code": "invalid-request",
        "detail": "see `errors`",
        "errors": [{"field": "device.token", "detail": "is missing"}, "broken"],
    }

    problem = Problem.read(400, document, "7")

    assert problem == Problem(400, "invalid-request", "see `errors`", (("device.token", "is missing"),), 7.0)
    assert str(Refused(problem)) == "400 invalid-request: see `errors`"


@pytest.mark.parametrize("document", [None, [], {"code": 7}, {}])
def test_the_page_of_a_proxy_has_a_code_made_of_its_status(document: object) -> None:
    assert Problem.read(502, document, None) == Problem(502, "http-502")


def test_errors_that_are_no_list_are_left_out() -> None:
    assert Problem.read(400, {"code": "x", "errors": {}}, None).fields == ()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("30", 30.0), (" 5 ", 5.0), ("999999999", 86400.0), ("9" * 30, None), ("-1", None), ("soon", None), ("٣", None)],
)
def test_a_retry_after_is_bounded_seconds(header: str, seconds: float | None) -> None:
    assert Problem.read(429, None, header).retry_after == seconds
