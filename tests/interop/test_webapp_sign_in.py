"""The sign-in of the web app at a company's own page, in Debian's Chromium: what comes back, and what is left of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from relay.process.clock import now
from relay.sandbox.process import open_relay
from tests.fakes.openid import CLIENT_ID, CLIENT_SECRET, OpenIdSimulator, open_openid_simulator
from tests.fakes.tls import Authority
from tests.interop.chromium import Browser, Page
from tests.interop.webapp_world import PASSWORD, USER, World, kept, notifications, world
from tests.waiting import SOON, until

PHONE = (360, 740)
TABLE = "RELAY__SERVERS__SANDBOX__"


@asynccontextmanager
async def company(folder: Path, credentials: str = "oauth") -> AsyncIterator[tuple[World, OpenIdSimulator]]:
    """Run an identity provider, and sandbox and relay whose mail server takes its tokens."""
    authority = Authority()
    (folder / "openid-ca.pem").write_bytes(authority.ca.cert_pem.bytes())
    (folder / "oauth.secret").write_text(CLIENT_SECRET)
    (folder / "oauth.secret").chmod(0o600)
    async with open_openid_simulator(tls=authority.server, now=now) as openid:
        settings = {
            "CREDENTIALS": credentials,
            "OAUTH_TOKEN_ENDPOINT": openid.token_endpoint,
            "OAUTH_AUTHORIZATION_ENDPOINT": openid.authorization_endpoint,
            "OAUTH_CLIENT_ID": CLIENT_ID,
            "OAUTH_CLIENT_SECRET_FILE": str(folder / "oauth.secret"),
            "OAUTH_SCOPE": "openid offline_access",
            "OAUTH_CA_FILE": str(folder / "openid-ca.pem"),
        }
        async with world(folder, **{f"{TABLE}{name}": value for name, value in settings.items()}) as relay:
            identities = relay.sandbox.eas.identities
            identities.passwords, identities.user_of = "basic" in credentials, openid.user_of
            yield relay, openid


async def begin(relay: World, page: Page) -> None:
    """Go to the sign-in."""
    await page.command("Security.setIgnoreCertificateErrors", ignore=True)  # of the identity provider
    await relay.subscribe(page)
    await relay.begin(page)
    await page.wait('[data-act="authorize"]')
    await page.type("#mailbox", USER)


async def leave(page: Page, answer: str, button: str = '[data-act="authorize"]') -> None:
    """Go to the company's page and give an answer there."""
    await page.follow(button)
    await page.follow(f"#{answer}")


async def test_a_person_signs_in_at_the_company_and_mail_rings(chromium: Browser, tmp_path: Path) -> None:
    async with company(tmp_path) as (relay, openid), chromium.page(*PHONE) as page:
        await begin(relay, page)
        assert not await page.evaluate("document.querySelector('#password').checkVisibility()")
        await leave(page, "agree")
        await page.wait("#status")
        await relay.pass_on(page, 1)
        await page.wait('[data-condition="well"]')
        await relay.pass_on_until(page, 2, "test")
        await page.wait('[data-notice="test-delivered"]')
        assert await page.evaluate("location.href") == relay.url

        relay.sandbox.eas.deliver(USER, subject="canary-subject")
        await relay.pass_on_until(page, 3, "new-items")
        await until(lambda: _shows(page, "New mail"))

        (asked,) = {url for url in page.requests if url.startswith(openid.authorization_endpoint)}
        query = parse_qs(urlsplit(asked).query)
        assert query["code_challenge_method"] == ["S256"]
        assert query["login_hint"] == [USER]
        assert query["scope"] == ["openid offline_access"]
        assert (openid.exchanges, openid.codes) == (1, {})
        for secret in ("canary-code-", query["state"][0], CLIENT_SECRET):
            assert secret not in await kept(page)
            assert secret not in relay.relay.log.read_text()
            assert all(secret.encode() not in each for each in relay.sandbox.webpush.messages)
            for file in relay.sandbox.folder.rglob("*.sqlite3*"):
                assert secret.encode() not in file.read_bytes()
        assert await page.evaluate("self.relayStore.get('authorization')") is None
        assert page.violations == []
        assert [each for each in page.console if openid.origin not in each] == []


async def test_a_company_that_answers_in_the_query_leaves_no_code_in_the_address_in_any_language(
    chromium: Browser, tmp_path: Path
) -> None:
    async with company(tmp_path) as (relay, openid), chromium.page() as page:
        openid.takes_fragments = False
        await begin(relay, page)
        await page.follow('nav a[hreflang="fr"]')
        await page.type("#mailbox", USER)
        await leave(page, "agree")
        await page.wait("#status")
        assert await page.evaluate("document.documentElement.lang") == "fr"
        await relay.pass_on(page, 1)
        await page.wait('[data-condition="well"]')
        history = await page.command("Page.getNavigationHistory")
        assert all("canary-code" not in each["url"] for each in history["entries"])
        assert "canary-code" not in relay.relay.log.read_text()


@pytest.mark.parametrize(("answer", "notice"), [("deny", "sign-in-denied"), ("forge", "sign-in-lost")])
async def test_without_an_answer_of_its_own_the_page_registers_nothing(
    chromium: Browser, tmp_path: Path, answer: str, notice: str
) -> None:
    async with company(tmp_path) as (relay, openid), chromium.page(*PHONE) as page:
        await begin(relay, page)
        await leave(page, answer)
        await page.wait(f'[data-notice="{notice}"]')
        await page.wait("#sign-in")
        assert openid.exchanges == 0
        assert json.loads(await kept(page))["values"].get("registration") is None
        assert await page.evaluate("self.relayStore.get('authorization')") is None

        if answer == "forge":
            await page.type("#mailbox", USER)
        await leave(page, "agree")
        await page.wait("#status")


async def test_a_refused_code_says_to_sign_in_again(chromium: Browser, tmp_path: Path) -> None:
    async with company(tmp_path) as (relay, openid), chromium.page(*PHONE) as page:
        await begin(relay, page)
        await page.follow('[data-act="authorize"]')
        openid.codes.clear()  # it has ended
        await page.follow("#agree")
        await page.wait('[data-notice="sign-in-refused"]')
        await page.wait("#sign-in")
        assert await page.evaluate("document.querySelector('#mailbox').value") == USER
        await leave(page, "agree")
        await page.wait("#status")


async def test_a_sign_in_that_has_ended_is_made_anew(chromium: Browser, tmp_path: Path) -> None:
    async with company(tmp_path) as (relay, openid), chromium.page(*PHONE) as page:
        openid.lifetime = 12  # seconds: the relay asks for another token after two
        await begin(relay, page)
        await leave(page, "agree")
        await page.wait("#status")
        await relay.pass_on(page, 1)
        await page.wait('[data-notice="test-delivered"]')
        before = relay.pushed
        openid.withdraw(USER)
        relay.sandbox.eas.deliver(USER)
        await relay.sandbox.webpush.wait(before + 1, SOON)
        await page.navigate(relay.url)
        await page.wait('[data-condition="sign-in-ended"]')
        assert not await page.evaluate("document.querySelector('[data-shows=password]').checkVisibility()")
        await leave(page, "agree", '[data-act="authorize-again"]')
        await page.wait('[data-notice="sign-in-taken"]')
        await page.wait('[data-condition="well"]')


async def test_who_has_both_may_choose(chromium: Browser, tmp_path: Path) -> None:
    async with company(tmp_path, "basic, oauth") as (relay, openid), chromium.page() as page:
        await begin(relay, page)
        await page.type("#password", PASSWORD)
        await page.click('[data-form="sign-in"] [type="submit"]')
        await page.wait("#status")
        assert openid.exchanges == 0


async def test_a_server_that_takes_no_passwords_any_more_is_signed_in_to_at_the_company(
    chromium: Browser, tmp_path: Path
) -> None:
    async with company(tmp_path, "basic, oauth") as (relay, openid), chromium.page(*PHONE) as page:
        await begin(relay, page)
        await page.type("#password", PASSWORD)
        await page.click('[data-form="sign-in"] [type="submit"]')
        await page.wait("#status")
        await relay.pass_on(page, 1)
        await page.wait('[data-condition="well"]')
        await relay.relay.stop()

        relay.sandbox.eas.identities.passwords = False
        environ = {**relay.environ, f"{TABLE}CREDENTIALS": "oauth"}
        async with open_relay(relay.sandbox.toml, relay.sandbox.ports.ops, environ=environ):
            await page.navigate(relay.url)
            await page.wait('[data-condition="sign-in-ended"]')
            assert not await page.evaluate("document.querySelector('[data-shows=password]').checkVisibility()")
            await leave(page, "agree", '[data-act="authorize-again"]')
            await page.wait('[data-notice="sign-in-taken"]')
            await page.wait('[data-condition="well"]')
            assert openid.exchanges == 1
            assert await page.evaluate("self.relayStore.get('registration').then((each) => each.login)") == "oauth"


async def test_who_signs_in_as_somebody_else_is_told_so(chromium: Browser, tmp_path: Path) -> None:
    async with company(tmp_path) as (relay, openid), chromium.page(*PHONE) as page:
        await begin(relay, page)
        await page.follow('[data-act="authorize"]')
        openid.codes = {code: replace(issued, user="ben@example.com") for code, issued in openid.codes.items()}
        await page.follow("#agree")
        await page.wait('[data-notice="sign-in-refused"]')
        await page.wait("#sign-in")
        assert "grant of another user refused" in relay.relay.log.read_text()
        assert json.loads(await kept(page))["values"].get("registration") is None


async def _shows(page: Page, title: str) -> bool:
    return any(each["title"] == title for each in await notifications(page))
