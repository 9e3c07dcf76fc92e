import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from relay.api.openapi import HEADERS, document, written
from relay.api.operations import OPERATIONS, Operation, Reply
from relay.api.problems import KINDS
from relay.api.pushes import MODELS, bodies
from relay.domain.model import Platform

ROOT: Final = Path(__file__).parents[4]
DOCUMENT: Final = document(OPERATIONS, KINDS)


def schema_of(reference: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**reference, "components": DOCUMENT["components"]})


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_shipped_document_is_that_of_the_code() -> None:
    shipped = json.loads((ROOT / "docs/openapi.json").read_text())

    assert shipped == json.loads(written(DOCUMENT)), "run `make docs`"


def test_every_code_is_of_an_operation() -> None:
    """A code that no operation has is one that no app expects: give it to a row of relay/api/operations.py."""
    of_paths = {"method-not-allowed"}

    assert {kind.code for kind in KINDS} - of_paths == {code for row in OPERATIONS for code in row.codes}


def test_an_operation_with_an_unknown_code_is_refused() -> None:
    row = Operation("odd", "GET", "/v1/odd", "Odd", (Reply(HTTPStatus.OK, "odd"),), ("no-such-code",))

    with pytest.raises(KeyError):
        document([row], KINDS)


def test_requests_and_answers_fit_their_own_examples() -> None:
    contents = [
        content
        for path in (*DOCUMENT["paths"].values(), *DOCUMENT["webhooks"].values())
        for operation in path.values()
        for part in (operation.get("requestBody", {}), *operation["responses"].values())
        for content in part.get("content", {}).values()
    ]
    shown = [
        (content["schema"], example)
        for content in contents
        for example in (
            *([content["example"]] if "example" in content else []),
            *(each["value"] for each in content.get("examples", {}).values()),
        )
    ]

    assert len(shown) > 40
    assert [error.message for schema, example in shown for error in schema_of(schema).iter_errors(example)] == []


def test_every_json_body_has_an_example() -> None:
    for row in OPERATIONS:
        assert (row.body is None) == (row.body_example is None), row.name
        assert all(reply.example is not None for reply in row.replies if reply.model is not None), row.name


def test_patterns_are_those_of_other_languages() -> None:
    patterns = re.findall(r'"pattern": "(.*)"', json.dumps(DOCUMENT, indent=1))

    assert patterns
    assert not any("\\Z" in pattern or "(?P" in pattern for pattern in patterns)


def test_a_list_of_classes_may_repeat_itself_as_the_relay_allows() -> None:
    classes = DOCUMENT["components"]["schemas"]["RegistrationBody"]["properties"]["classes"]["anyOf"][0]

    assert "uniqueItems" not in classes
    assert "maxItems" not in classes
    assert classes["minItems"] == 1


def test_an_operation_on_a_registration_demands_its_secret() -> None:
    assert DOCUMENT["paths"]["/v1/registrations/{id}"]["get"]["security"] == [{"secret": []}]
    assert "security" not in DOCUMENT["paths"]["/v1/registrations"]["post"]


def test_a_query_is_a_bounded_text() -> None:
    from relay.api.operations import Query  # noqa: PLC0415 -- only this test needs it

    row = Operation(
        "odd", "GET", "/v1/odd", "Odd", (Reply(HTTPStatus.OK, "odd"),), query=(Query("q", "what to ask", 5),)
    )

    (parameter,) = document([row], KINDS)["paths"]["/v1/odd"]["get"]["parameters"]

    assert parameter == {
        "name": "q",
        "in": "query",
        "description": "what to ask",
        "schema": {"type": "string", "minLength": 1, "maxLength": 5},
    }


def test_several_codes_of_one_status_are_one_answer() -> None:
    answer = DOCUMENT["paths"]["/v1/registrations"]["post"]["responses"]["422"]
    codes = answer["content"]["application/problem+json"]["examples"].keys()

    assert codes >= {"unknown-server", "unknown-app", "unsupported-device"}


def test_an_answer_names_its_headers() -> None:
    answers = DOCUMENT["paths"]["/v1/registrations/{id}"]["get"]["responses"]

    assert "WWW-Authenticate" in answers["401"]["headers"]
    assert "Retry-After" in answers["429"]["headers"]
    assert {name for row in OPERATIONS for reply in row.replies for name in reply.headers} <= HEADERS.keys()


@pytest.mark.parametrize("platform", MODELS)
def test_every_body_of_a_push_is_in_the_document(platform: Platform) -> None:
    """A field that the models in relay/api/pushes.py do not have is lost here, and the comparison fails."""
    for name, body in bodies(platform):
        assert MODELS[platform].model_validate(body).model_dump(by_alias=True, exclude_unset=True) == body, name


@pytest.mark.parametrize("platform", MODELS)
def test_each_kind_of_push_is_shown(platform: Platform) -> None:
    content = DOCUMENT["webhooks"][platform.value]["post"]["requestBody"]["content"]["application/json"]

    assert content["examples"].keys() >= {"email", "attention", "test"}
