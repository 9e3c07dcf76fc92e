"""What the API says of itself, and its manners in HTTP."""

import gzip
import json

import pytest

from relay.api.app import Limits
from relay.api.operations import CHANGES, OPERATIONS, Operation
from relay.api.problems import KINDS
from tests.integration.test_api import serving, wish


async def test_the_api_describes_itself_and_may_be_cached() -> None:
    async with serving() as api, api.client.get("/v1/openapi.json") as response:
        described = await response.json()
        tag = response.headers["ETag"]

        assert (response.status, response.content_type) == (200, "application/json")
        assert described["openapi"].startswith("3.1")
        assert described["paths"]["/v1/registrations"]["post"]["operationId"] == "register"
        assert response.headers["Cache-Control"] == "public, max-age=3600"

        async with api.client.get("/v1/openapi.json", headers={"If-None-Match": f'"other", {tag}'}) as again:
            assert (again.status, again.headers["ETag"], await again.read()) == (304, tag, b"")
        async with api.client.get("/v1/openapi.json", headers={"If-None-Match": '"other"'}) as other:
            assert (other.status, other.headers["ETag"]) == (200, tag)


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate,gzip", True),
        ("gzip;q=1.0, identity", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, br", False),
        ("x-gzip-like", False),
    ],
)
async def test_the_document_is_compressed_for_those_who_read_it_so(accepted: str, compressed: bool) -> None:
    async with serving() as api:
        headers = {"Accept-Encoding": accepted}
        async with api.client.get("/v1/openapi.json", headers=headers, auto_decompress=False) as response:
            raw = await response.read()
            encoding, vary = response.headers.get("Content-Encoding"), response.headers["Vary"]

    assert (encoding, vary) == ("gzip" if compressed else None, "Accept-Encoding")
    assert json.loads(gzip.decompress(raw) if compressed else raw)["openapi"].startswith("3.1")
    assert (len(raw) < 30_000) is compressed


async def test_the_type_of_every_problem_leads_to_its_paragraph() -> None:
    async with serving() as api:
        for kind in KINDS:
            async with api.client.get(f"/problems/{kind.code}") as response:
                text = await response.text()
                assert (response.status, response.content_type) == (200, "text/plain")
                assert text.startswith(f"{kind.code}\n\n{kind.status.value}. "), text
        await api.problem((404, "no-such-resource"), "GET", "/problems/no-such-code")


@pytest.mark.parametrize("path", ["/v1/registrations/{id}", "/v1/openapi.json", "/problems/busy", "/v1/webpush"])
async def test_head_answers_as_get_does_without_the_body(path: str) -> None:
    async with serving(vapid_public_key="BIfm") as api:
        made = await api.register()
        headers = {"Authorization": f"Bearer {made['secret']}"}
        place = path.format(id=made["id"])
        async with api.client.get(place, headers=headers) as got, api.client.head(place, headers=headers) as head:
            ours = {"Content-Type", "Content-Length", "Cache-Control", "ETag", "X-Content-Type-Options"}
            assert (head.status, await head.read()) == (200, b"")
            assert {name: head.headers.get(name) for name in ours} == {name: got.headers.get(name) for name in ours}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/registrations", {"OPTIONS", "POST"}),
        ("/v1/openapi.json", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/registrations/abc/test-push", {"OPTIONS", "POST"}),
    ],
)
async def test_options_answers_with_the_methods_of_a_path(path: str, methods: set[str]) -> None:
    async with serving() as api:
        response, answer = await api.call("OPTIONS", path)

    assert (response.status, answer, set(response.headers["Allow"].split(", "))) == (204, {}, methods)


async def test_a_verdict_that_is_late_says_when_to_look_again() -> None:
    async with serving() as api:
        response, made = await api.call("POST", "/v1/registrations", wish("canary-silent"))
        assert (response.status, response.headers["Retry-After"]) == (202, "10")

        change = {"credential": wish("canary-silent")["credential"]}
        path = f"/v1/registrations/{made['id']}"
        response, _ = await api.call("PATCH", path, change, made["secret"])
        assert (response.status, response.headers["Retry-After"]) == (202, "10")


async def test_every_answer_says_what_the_limits_leave() -> None:
    async with serving(Limits(requests_per_minute=600, registrations_per_minute=2)) as api:
        response, _ = await api.call("GET", "/v1/registrations/none")
        assert response.headers["RateLimit-Policy"] == '"address";q=600;w=60'
        assert response.headers["RateLimit"] == '"address";r=599;t=1'

        for left in (1, 0):
            response, _ = await api.call("POST", "/v1/registrations", {})
            assert f'"registrations";r={left};t=' in response.headers["RateLimit"]
        response, answer = await api.call("POST", "/v1/registrations", {})
        assert (response.status, answer["code"]) == (429, "too-many-registrations")
        assert '"registrations";q=2;w=60' in response.headers["RateLimit-Policy"]
        assert 0 < int(response.headers["Retry-After"]) <= 30
        await api.problem((401, "not-authorized"), "GET", "/v1/registrations/none")


async def test_a_known_registration_has_a_limit_of_its_own() -> None:
    async with serving() as api:
        made = await api.register()
        path = f"/v1/registrations/{made['id']}"
        await api.call("GET", path, secret=made["secret"])
        response, _ = await api.call("GET", path, secret=made["secret"])

        assert response.headers["RateLimit-Policy"] == '"registration";q=60;w=60'
        for _ in range(70):
            response, answer = await api.call("GET", path, secret=made["secret"])
            if response.status == 429:
                break
        assert (response.status, answer["code"]) == (429, "too-many-for-registration")


@pytest.mark.parametrize(
    ("secret", "challenge"),
    [(None, 'Bearer realm="registration"'), ("guess", 'Bearer realm="registration", error="invalid_token"')],
)
async def test_a_wrong_secret_is_told_from_none_but_no_registration_from_another(
    secret: str | None, challenge: str
) -> None:
    async with serving() as api:
        made = await api.register()
        for id_ in (made["id"], "none"):
            response, _ = await api.call("GET", f"/v1/registrations/{id_}", secret=secret)
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, challenge)


@pytest.mark.parametrize(
    "encodings", [["br"], ["zstd"], ["compress"], ["x-secret"], ["gzip, gzip"], ["gzip", "br"], ["identity", "gzip"]]
)
async def test_an_unknown_encoding_is_415_with_the_known_ones(encodings: list[str]) -> None:
    async with serving() as api:
        headers = [("Content-Type", "application/json"), *(("Content-Encoding", each) for each in encodings)]
        async with api.client.post("/v1/registrations", data=b"{}", headers=headers) as response:
            answer = await response.json(content_type=None)

    assert (response.status, answer["code"]) == (415, "unknown-encoding")
    assert response.headers["Accept-Encoding"] == "gzip, deflate"
    assert response.headers["Cache-Control"] == "no-store"
    assert "x-secret" not in str(answer)


async def test_the_capabilities_are_those_of_the_settings() -> None:
    async with serving(vapid_public_key="BIfm") as api:
        response, answer = await api.call("GET", "/v1/capabilities?mailbox=ann@branch.example.com")

    assert response.status == 200
    assert answer["version"] == "1.2.3"
    assert answer["platforms"]["apns"] == {"apps": ["com.example.mail"], "environments": ["production", "sandbox"]}
    assert answer["platforms"]["fcm"] == {"apps": ["com.example.droid"]}
    assert answer["platforms"]["webpush"]["vapid_public_key"] == "BIfm"
    assert answer["enrolment"] == {"alternatives": [["open"]], "invitation": False}
    assert set(answer["server"]["credentials"]) == {"basic", "certificate", "kerberos", "oauth"}
    assert answer["server"]["oauth"] == {
        "authorization_endpoint": "https://login.example.com/authorize",
        "token_endpoint": "https://login.example.com/token",
        "client_id": "push-relay",
        "scope": "openid",
        "audience": ["mail"],
    }
    assert "de" in answer["languages"]
    assert answer["limits"]["registrations_per_mailbox"] == 20


async def test_the_capabilities_do_not_tell_whether_a_mailbox_exists() -> None:
    """Nothing is asked for them, so no answer can take longer than another: neither store nor mail server."""
    async with serving() as api:
        await api.register()
        before = api.world.store.views
        (_, known), (_, unknown) = [
            await api.call("GET", f"/v1/capabilities?mailbox={name}@example.com") for name in ("ann", "nobody")
        ]
        assert known == unknown
        assert known["server"] == {"name": "head-office", "credentials": ["basic"], "oauth": None}
        assert api.world.store.views == before


@pytest.mark.parametrize(
    ("query", "server"),
    [("mailbox=ann@elsewhere.example", None), ("", None), ("mailbox=ann@elsewhere.example&server=branch", "branch")],
)
async def test_a_mailbox_of_no_server_is_told_so(query: str, server: str | None) -> None:
    async with serving() as api:
        _, answer = await api.call("GET", f"/v1/capabilities?{query}")

    assert (None if answer["server"] is None else answer["server"]["name"]) == server


async def test_the_name_of_a_server_is_bounded_as_the_document_says() -> None:
    async with serving() as api:
        answer = await api.problem((400, "invalid-request"), "GET", f"/v1/capabilities?server={'a' * 65}")

    assert answer["errors"] == [{"field": "server", "detail": "must be given once, with 1 to 64 characters"}]


@pytest.mark.parametrize("query", ["mailbox=", "mailbox=a:b", "mailbox=a&mailbox=b", f"mailbox={'a' * 321}"])
async def test_a_mailbox_that_is_none_is_named(query: str) -> None:
    async with serving() as api:
        answer = await api.problem((400, "invalid-request"), "GET", f"/v1/capabilities?{query}")

    assert [each["field"] for each in answer["errors"]] == ["mailbox"]


async def test_the_capabilities_are_limited_as_every_request_is() -> None:
    async with serving(Limits(requests_per_minute=2)) as api:
        for _ in range(2):
            await api.call("GET", "/v1/capabilities")
        await api.problem((429, "too-many-requests"), "GET", "/v1/capabilities")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_a_browser_changes_nothing_for_a_page_of_another_site(site: str) -> None:
    async with serving() as api:
        sent = {"Sec-Fetch-Site": site}
        async with api.client.post("/v1/registrations", json=wish(), headers=sent) as refused:
            assert (refused.status, (await refused.json())["code"]) == (403, "cross-site")
        async with api.client.get("/v1/capabilities", headers=sent) as looked:
            assert looked.status == 200
        own = {"Sec-Fetch-Site": "same-origin"}
        async with api.client.post("/v1/registrations", json=wish(), headers=own) as taken:
            assert taken.status in {201, 202}


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
@pytest.mark.parametrize("row", [row for row in OPERATIONS if row.method in CHANGES], ids=lambda row: row.name)
async def test_what_a_page_of_another_site_may_send_unasked_changes_nothing_in_a_browser_that_says_nothing(
    row: Operation, media_type: str
) -> None:
    path = row.path.format(id="some-registration", test="some-test")
    asked = {"Origin": "https://other.example.com", "Access-Control-Request-Method": row.method}
    async with serving() as api:
        sent = {"Content-Type": media_type, "Origin": "https://other.example.com"}
        async with api.client.request(row.method, path, data=json.dumps(wish()), headers=sent) as refused:
            assert refused.status in {401, 415}
        async with api.client.options(path, headers=asked) as answer:
            assert [name for name in answer.headers if name.lower().startswith("access-control")] == []
