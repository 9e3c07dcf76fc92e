import json
import re
from pathlib import Path

import pytest
from aiohttp import web

from relay.api.guard import CODES
from relay.api.problems import BY_ERROR, UnknownEncoding, refusal
from relay.domain.errors import RelayError, SealBroken, StoreUnavailable
from relay.http import kinds, problems
from relay.registration import errors

KINDS = [*BY_ERROR.values(), *kinds.BY_STATUS.values(), kinds.BAD_REQUEST, kinds.INTERNAL]
API_TEXT = Path("docs/api.md")


def read(response: web.Response | None) -> dict[str, object]:
    assert response is not None
    assert response.content_type == "application/problem+json"
    assert isinstance(response.body, bytes)
    body: dict[str, object] = json.loads(response.body)
    assert body["status"] == response.status
    assert body["type"] == f"/problems/{body['code']}"
    return body


def test_every_refusal_has_its_place_in_the_table() -> None:
    named = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, RelayError)}

    assert named - {RelayError, errors.FieldRefused} <= set(BY_ERROR)


def test_a_code_means_one_status_and_one_title() -> None:
    by_code = {kind.code: kind for kind in KINDS}

    assert all(by_code[kind.code] == kind for kind in KINDS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in by_code)


def test_every_code_is_explained_to_app_developers() -> None:
    explained = set(re.findall(r"^### `([a-z-]+)`", (Path(__file__).parents[4] / API_TEXT).read_text(), re.MULTILINE))

    assert explained == {kind.code for kind in KINDS}


def test_faults_are_listed_by_field() -> None:
    body = read(refusal(errors.InvalidRequest([("mailbox", "is missing")])))

    assert body["errors"] == [{"field": "mailbox", "detail": "is missing"}]


@pytest.mark.parametrize("cls", [cls for cls in BY_ERROR if issubclass(cls, errors.FieldRefused)])
def test_what_one_field_asks_for_and_cannot_be_names_the_field(cls: type[errors.FieldRefused]) -> None:
    body = read(refusal(cls("the text", "device.app")))

    assert (body["detail"], body["errors"]) == ("the text", [{"field": "device.app", "detail": "the text"}])


@pytest.mark.parametrize(
    "error", [errors.TooManyRefusals(59.5), errors.TooManyRequests(59.5)], ids=lambda error: type(error).__name__
)
def test_too_many_requests_are_answered_with_the_time_to_wait(error: RelayError) -> None:
    response = refusal(error)

    assert response is not None
    assert (response.status, response.headers["Retry-After"]) == (429, "60")


def test_a_request_with_a_wrong_secret_is_told_so() -> None:
    response = refusal(errors.NotAuthorized("no"))

    assert response is not None
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="registration", error="invalid_token"'


def test_a_request_that_shows_no_secret_is_not_told_that_it_is_wrong() -> None:
    response = refusal(errors.NoSecret("no"))

    assert response is not None
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="registration"'
    assert read(response)["code"] == "not-authorized"


def test_each_limit_has_its_own_code() -> None:
    limits = (errors.TooManyRequests, errors.TooManyRegistrations, errors.TooManyOfRegistration)
    bodies = [read(refusal(limit(5))) for limit in limits]

    assert [body["code"] for body in bodies] == [CODES[limit] for limit in limits]
    assert len({body["detail"] for body in bodies}) == 3


def test_an_unknown_encoding_is_answered_with_the_known_ones() -> None:
    response = refusal(UnknownEncoding("no"))

    assert response is not None
    assert (response.status, response.headers["Accept-Encoding"]) == (415, "gzip, deflate")


def test_an_unavailable_database_is_reported_without_its_name() -> None:
    response = refusal(StoreUnavailable("canary-host refused"))

    assert "canary" not in str(read(response))
    assert response is not None
    assert response.headers["Retry-After"] == "5"


def test_an_error_that_no_app_can_cause_is_not_in_the_table() -> None:
    assert refusal(SealBroken("canary")) is None


def test_the_frameworks_refusals_keep_their_allow_header() -> None:
    response = problems.framework_refusal(web.HTTPMethodNotAllowed("PUT", ["GET", "PATCH"]))

    assert read(response)["code"] == "method-not-allowed"
    assert response.headers["Allow"] == "GET,PATCH"


def test_other_refusals_of_the_framework_are_bad_requests() -> None:
    assert read(problems.framework_refusal(web.HTTPLengthRequired()))["code"] == "bad-request"
