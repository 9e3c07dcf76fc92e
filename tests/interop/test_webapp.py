"""The web app in Debian's Chromium: a person signs in, a mail rings; what goes wrong ends in words that help."""

import json
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest

from relay.domain.model import Mark
from relay.push.payload import TEXTS
from relay.push.webpush.vapid import make_key, public_key
from relay.sandbox.process import open_relay
from relay.webapp.words import languages
from tests.interop.axe import serious
from tests.interop.chromium import Browser, Page
from tests.interop.packages import Unavailable, unavailable
from tests.interop.webapp_world import (
    OPEN_URL,
    PASSWORD,
    SILENCE,
    USER,
    World,
    click,
    in_worker,
    kept,
    notifications,
    world,
)
from tests.waiting import SOON, until

PHONE = (360, 740)
IPHONE_WAITS = 10  # seconds until an iPhone ends a service worker; it shows nothing then
CANARIES = ("canary-subject", "canary-sender@example.com", "canary-body")


def deliver(relay: World) -> None:
    subject, sender, body = CANARIES
    relay.sandbox.eas.deliver(USER, subject=subject, sender=sender, body=body)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_a_mail_rings_and_nothing_of_it_reaches_browser_push_service_or_log(
    chromium: Browser, relay: World
) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        await page.worker(relay.url)
        deliver(relay)
        said = await relay.pass_on_until(page, 3, "new-items")

        await until(lambda: _shows(page, "New mail"))
        shown = [each for each in await notifications(page) if each["tag"] == "email"]
        title, body = TEXTS["en"][Mark.EMAIL]
        assert [(each["title"], each["body"], each["lang"]) for each in shown] == [(title, body, "en")]
        assert shown[0]["data"]["navigate"] == said["notification"]["navigate"] == OPEN_URL

        await until(lambda: _counts(relay, "relay_push_receipts_total"))
        assert await click(page, relay.url, "email") == OPEN_URL
        await until(lambda: _has_tags(page, "challenge", "test"))

        browser_keeps = await kept(page)
        for canary in (PASSWORD, *CANARIES):
            assert canary not in browser_keeps
            assert canary not in relay.relay.log.read_text()
            assert all(canary.encode() not in message for message in relay.sandbox.webpush.messages)
        assert json.loads(browser_keeps)["cookies"] == ""
        assert all("/app/static/" in url or url.endswith("/app/offline") for url in json.loads(browser_keeps)["cached"])

        assert any(url.endswith("/receipts") for url in page.requests), "those of the service worker are noted, too"
        own = (relay.origin, "data:image/svg+xml")  # the browser's own picture in fields for a time
        assert [url for url in page.requests if not url.startswith(own)] == []
        assert page.violations == []
        assert page.console == []
    assert relay.sandbox.webpush.complaints == []


async def test_the_browser_finds_an_app_that_it_can_install(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await page.navigate(relay.url)
        manifest = await page.command("Page.getAppManifest")
        found = await page.command("Page.getInstallabilityErrors")
        assert (manifest["url"], manifest["errors"]) == (f"{relay.url}manifest.webmanifest", [])
        # Pages of the tests are in a window of their own, as private ones are.
        assert [each["errorId"] for each in found["installabilityErrors"]] == ["in-incognito"]


async def test_a_wrong_password_is_told_from_an_account_that_must_wait(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.subscribe(page)
        await relay.begin(page)
        await relay.sign_in(page, "wrong")
        await page.wait('[data-notice="credential-refused"]')
        assert await page.evaluate("document.querySelector('#password').value") == ""
        await relay.sign_in(page, "wrong again")
        await until(lambda: _is(page, "!document.querySelector('[data-form=sign-in] button').disabled"))
        await page.wait('[data-notice="credential-refused"]')
        await relay.sign_in(page, "and again")
        await page.wait('[data-notice="too-many-refusals"]')
        assert json.loads(await kept(page))["values"].get("registration") is None


async def test_a_sign_in_without_an_answer_is_sent_again_as_the_same_one(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.subscribe(page)
        await relay.begin(page)
        await page.evaluate(LOSES_ANSWERS)
        await relay.sign_in(page)
        await page.wait('[data-notice="unreachable"]')
        values = json.loads(await kept(page))["values"]
        assert (values.get("registration"), PASSWORD in json.dumps(values)) == (None, False)

        await relay.pass_on(page, 1)
        await page.evaluate("self.fetch = self.answered")
        await relay.sign_in(page)
        await page.wait('[data-condition="well"]')
        kept_now = json.loads(await kept(page))["values"]
        assert kept_now["registration"]["id"] == values["unanswered"]["id"]
        assert kept_now.get("unanswered") is None


async def test_a_browser_that_does_not_start_the_service_worker_is_told_so(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.subscribe(page)
        await relay.begin(page)
        await page.evaluate(
            "navigator.serviceWorker.register = async () => { throw new DOMException('', 'SecurityError') }"
        )
        await relay.sign_in(page)
        await page.wait('[data-notice="no-worker"]')
        assert relay.sandbox.webpush.received == []


async def test_caches_of_other_applications_of_the_origin_stay(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await page.navigate(relay.url)
        await page.evaluate("Promise.all(['another-app', 'relay-web-old'].map((name) => caches.open(name)))")
        await relay.register(page)
        names = await page.evaluate("caches.keys()")
        assert "another-app" in names
        assert "relay-web-old" not in names
        assert len(names) == 2


async def test_a_relay_that_is_away_is_told_from_anything_else(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        await relay.relay.stop()
        await page.click('[data-act="test"]')
        await page.wait('[data-notice="unreachable"]')
        assert await page.evaluate("document.querySelectorAll('[data-condition]:not([hidden])').length") == 0

        async with open_relay(relay.sandbox.toml, relay.sandbox.ports.ops):
            await page.evaluate(LOOKS_AGAIN)
            await page.wait('[data-condition="well"]')
            assert await page.evaluate("document.querySelectorAll('[data-notice]:not([hidden])').length") == 0


async def test_while_the_mail_server_is_away_a_person_need_do_nothing(chromium: Browser, relay: World) -> None:
    relay.sandbox.eas.break_backend()
    async with chromium.page(*PHONE) as page:
        await relay.subscribe(page)
        await relay.begin(page)
        await relay.sign_in(page)
        await page.wait('[data-condition="verifying"]')
        relay.sandbox.eas.break_backend(broken=False)
        await relay.pass_on(page, 1)
        await page.wait('[data-condition="well"]')


async def test_a_declarative_push_of_webkit_is_answered_and_replaced(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.subscribe(page)
        await relay.begin(page)
        await relay.sign_in(page)
        await page.wait("#status")
        challenge = await relay.declare(page, 1)
        assert (challenge["ends"], challenge["shown"][0]["title"]) == (["fulfilled"], "Notifications are on")
        await page.wait('[data-condition="well"]')

        test = await relay.declare(page, 2)
        assert test["shown"][0]["navigate"] == f"{relay.url}#test"
        await until(lambda: _counts(relay, "relay_push_receipts_total"))


async def test_a_relay_that_is_silent_does_not_hold_a_notification_up(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        await in_worker(page, relay.url, SILENCE)
        before = relay.pushed
        deliver(relay)
        did = await relay.declare(page, before + 1)
        assert (did["ends"], len(did["shown"])) == (["fulfilled"], 1)
        assert did["seconds"] < IPHONE_WAITS
        assert len(json.loads(await kept(page))["values"]["receipts"]) == 1


async def test_a_changed_vapid_key_is_subscribed_for_at_the_next_visit(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        before = relay.pushed
        endpoint = await relay.subscribe(page, public_key(make_key()))
        await page.navigate(relay.url)
        await until(lambda: _has(page, endpoint))
        assert await page.evaluate("localStorage.getItem('ended')") == "1"
        await relay.pass_on(page, before + 1)
        await page.wait('[data-condition="well"]')


async def test_a_subscription_that_the_browser_replaces_is_sent_without_a_visit(
    chromium: Browser, relay: World
) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        before = relay.pushed
        endpoint = await relay.replace_subscription(page)
        assert await _endpoint(page) == endpoint
        challenge = await relay.pass_on(page, before + 1)
        assert challenge["notification"]["data"]["kind"] == "challenge"
        deliver(relay)
        await relay.pass_on_until(page, before + 2, "new-items")
        assert relay.sandbox.webpush.received[-1].device_token == endpoint


async def test_denied_notifications_lead_to_the_settings_and_back(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.subscribe(page)
        await relay.begin(page, "denied")
        await page.wait("#denied")
        await page.permit(relay.origin, "notifications")
        await page.click('[data-act="again"]')
        await page.wait("#sign-in")


async def test_after_cleared_storage_a_person_signs_in_again_and_has_one_registration(
    chromium: Browser, relay: World
) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        before = relay.pushed
        await page.evaluate("self.relayStore.clear()")
        await page.navigate(relay.url)
        await page.wait("#welcome")
        await page.click('[data-act="begin"]')
        await relay.sign_in(page)
        await page.wait("#status")
        await relay.pass_on(page, before + 1)
        await page.wait('[data-condition="well"]')
        await relay.pass_on_until(page, before + 2, "test")
        await page.wait('[data-notice="test-delivered"]')

        deliver(relay)
        await relay.pass_on_until(page, before + 3, "new-items")
        assert len({push.device_token for push in relay.sandbox.webpush.received}) == 1


async def test_a_second_account_comes_after_the_first_has_stopped(chromium: Browser, relay: World) -> None:
    relay.sandbox.eas.add_mailbox("ben@example.com", "canary-password-of-ben")
    async with chromium.page() as page:
        await relay.register(page)
        await page.evaluate("document.querySelector('[data-act=stop]').closest('details').open = true")
        await page.click('[data-act="stop"]')
        await page.wait('[data-notice="stopped"]')
        await page.wait("#sign-in")
        await relay.sign_in(page, "canary-password-of-ben", "ben@example.com")
        await page.wait("#status")
        await until(lambda: _is(page, "document.querySelector('[data-shows=user]').textContent == 'ben@example.com'"))
        assert json.loads(await kept(page))["values"]["registration"]["id"]


async def test_a_changed_password_is_asked_for_and_taken(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        relay.sandbox.eas.add_mailbox(USER, "canary-new-password")
        await page.click('[data-shows="password"] > summary')
        await page.type("#new-password", "canary-wrong")
        await page.click('[data-form="password"] button')
        await page.wait('[data-notice="credential-refused"]')
        await page.type("#new-password", "canary-new-password")
        await page.click('[data-form="password"] button')
        await page.wait('[data-notice="password-taken"]')
        await page.wait('[data-condition="well"]')


async def test_a_refusal_that_is_not_sure_yet_is_no_silence_of_the_mail_server(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        relay.sandbox.eas.add_mailbox(USER, "canary-new-password")
        deliver(relay)
        await until(
            lambda: _is(
                page, f"Promise.resolve({LOOKS_AGAIN}).then(() => !document.querySelector({DOUBTFUL!r}).hidden)"
            )
        )


async def test_a_wiped_device_forgets_all_and_is_told_who_did_it(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        relay.sandbox.eas.wipe(USER)
        deliver(relay)
        said = await relay.pass_on_until(page, 3, "attention")
        assert said["notification"]["data"]["reason"] == "wiped"
        await page.wait('[data-notice="wiped"]')
        await page.wait("#sign-in")
        values = json.loads(await kept(page))["values"]
        assert {name for name, value in values.items() if value is not None} == {"welcomed"}
        await until(lambda: _shows(page, "Attention needed"))
        assert await click(page, relay.url, "attention") == f"{relay.url}#attention"


async def test_wishes_are_kept_and_quiet_hours_silence(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        await page.click('[name="class"][value="calendar"]')
        await page.evaluate("document.querySelector('#from').value = '00:00'")
        await page.evaluate("document.querySelector('#to').value = '23:59'")
        await page.click('[data-form="wishes"] button')
        await page.wait('[data-notice="saved"]')
        assert json.loads(await kept(page))["values"]["quiet"] == {"from": 0, "to": 1439}

        deliver(relay)
        await relay.pass_on_until(page, 3, "new-items")
        await until(lambda: _shows(page, "New mail"))
        assert [each["silent"] for each in await notifications(page) if each["tag"] == "email"] == [True]


async def test_a_registration_that_has_ended_is_forgotten(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        await page.evaluate(
            "self.relayStore.get('registration').then(r => self.relayCalls.call('DELETE', self.relayCalls.of(r), r))"
        )
        await page.navigate(relay.url)
        await page.wait('[data-notice="gone"]')
        await page.wait("#sign-in")
        assert json.loads(await kept(page))["values"].get("registration") is None


async def test_a_lost_subscription_is_renewed_at_the_next_visit(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        before = relay.pushed
        relay.sandbox.webpush.gone(await _endpoint(page))
        deliver(relay)
        await relay.sandbox.webpush.wait(before + 1, SOON)
        await page.evaluate("localStorage.removeItem('subscribed')")
        endpoint = await relay.subscribe(page)
        await page.navigate(relay.url)
        await until(lambda: _has(page, endpoint))
        await relay.pass_on(page, before + 2)
        await page.wait('[data-condition="well"]')


async def test_a_subscription_that_ends_while_the_page_is_open_is_renewed(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        before = relay.pushed
        relay.sandbox.webpush.gone(await _endpoint(page))
        endpoint = await relay.resubscribe(page)
        deliver(relay)
        await relay.sandbox.webpush.wait(before + 1, SOON)
        await page.evaluate(HEARS_OF_A_PUSH)
        await until(lambda: _has(page, endpoint))
        await relay.pass_on(page, before + 2)
        await page.wait('[data-condition="well"]')


async def test_a_second_window_registers_no_second_mailbox(chromium: Browser, relay: World) -> None:
    relay.sandbox.eas.add_mailbox("ben@example.com", "canary-password-of-ben")
    async with chromium.page() as page:
        await relay.subscribe(page)
        await relay.begin(page)
        await page.wait("#sign-in")
        # Another window of the browser has signed in meanwhile, for which the store alone speaks.
        other = {"id": "other-registration-of-ann", "secret": "s" * 43, "login": "basic"}
        await page.evaluate(f"self.relayStore.set('registration', {json.dumps(other)})")
        await relay.sign_in(page, "canary-password-of-ben", "ben@example.com")
        await page.wait('[data-notice="gone"]')  # the relay does not know the one of this test
        asked = {url for url in page.requests if "/v1/registrations/" in url}
        assert asked == {f"{relay.origin}/v1/registrations/{other['id']}"}


async def test_a_language_that_a_person_chose_stays(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await page.navigate(relay.url)
        await page.follow('nav a[hreflang="fr"]')
        await page.wait("#welcome")
        await page.navigate(relay.url)
        await page.wait("html[lang=fr] #welcome")
        await page.follow('nav a[hreflang="en"]')
        await page.wait("html[lang=en] #welcome")


async def test_who_uses_a_keyboard_keeps_the_place_after_sending(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await relay.register(page)
        await page.evaluate("document.querySelector('[data-form=wishes] [type=submit]').focus()")
        await page.press("Enter")
        await page.wait('[data-notice="saved"]')
        await until(lambda: _is(page, "document.activeElement.matches('[data-form=wishes] [type=submit]')"))


async def test_without_the_relay_the_page_says_so(chromium: Browser, relay: World) -> None:
    async with chromium.page(*PHONE) as page:
        await relay.register(page)
        await relay.relay.stop()
        await page.navigate(relay.url)
        assert "The relay cannot be reached" in await page.text()
        assert await page.evaluate("document.querySelector('a.button').href") == relay.url


async def test_steps_are_decided_from_facts(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        await page.navigate(relay.url)
        module = next(url for url in page.requests if url.endswith("/steps.js"))

        async def due(**facts: object) -> object:
            return await page.evaluate(f"import({module!r}).then(m => m.due({json.dumps(facts)}))")

        ready = {"welcomed": True, "supported": True, "permission": "granted"}
        assert await due() == "welcome"
        assert await due(**ready, apple=True, phone=True) == "install"
        assert await due(**{**ready, "supported": False}, apple=True, phone=True) == "install"
        assert await due(**{**ready, "supported": False}) == "unsupported"
        assert await due(**ready, apple=True, phone=True, standalone=True) == "sign-in"
        assert await due(**ready, phone=True) == "install"
        assert await due(**ready, phone=True, skipped=True) == "sign-in"
        assert await due(**{**ready, "permission": "denied"}) == "denied"
        assert await due(**{**ready, "permission": "default"}) == "allow"
        assert await due(**ready, registered=True) == "status"
        times = "[m.minutes('22:30'), m.clock(1350), m.minutes('24:00'), m.minutes('')]"
        assert await page.evaluate(f"import({module!r}).then(m => {times})") == [1350, "22:30", None, None]


async def test_every_step_fits_into_every_screen_and_everybody_can_use_it(chromium: Browser, relay: World) -> None:
    async with chromium.page() as page:
        for language, width, dark in product(languages(), (320, 360, 1280), (False, True)):
            await page.resize(width, 740)
            await page.darken(dark=dark)
            await page.navigate(f"{relay.url}?lang={language}")
            await page.wait("#welcome")
            for step in ("welcome", "install", "allow", "denied", "unsupported", "sign-in", "status"):
                await page.evaluate(SHOW % json.dumps(step))
                at = (language, width, dark, step)
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), at
                assert await _serious(page) == [], at
        await page.evaluate("document.querySelector('label[for=new-password]').remove()")
        assert await _serious(page) != [], "the look for faults finds none at all"


LOOKS_AGAIN = "document.dispatchEvent(new Event('visibilitychange'))"
HEARS_OF_A_PUSH = "navigator.serviceWorker.dispatchEvent(new MessageEvent('message', { data: { kind: 'attention' } }))"
"""Lets an open page look at once, as it does each minute."""
DOUBTFUL = '[data-condition="doubtful"]'
LOSES_ANSWERS = """
self.answered = self.fetch;
self.fetch = async (path, options) => {
  if (!path.startsWith('/v1/registrations/')) return self.answered(path, options);
  if (options.method === 'PUT') await self.answered(path, options);
  throw new TypeError('no network');
};
"""
"""The relay takes what is sent to registrations, and the network loses its answers."""
SHOW = """
for (const each of document.querySelectorAll('main > section')) each.hidden = each.id !== %s;
for (const each of document.querySelectorAll('details')) each.open = true;
for (const name of ['system', 'notice', 'condition', 'needs', 'way'])
  for (const each of document.querySelectorAll(`[data-${name}]`)) each.hidden = false;
"""


async def _serious(page: Page) -> list[str]:
    try:
        return await serious(page)
    except Unavailable as reason:
        unavailable(reason)


async def _shows(page: Page, title: str) -> bool:
    return any(each["title"] == title for each in await notifications(page))


async def _has_tags(page: Page, *tags: str) -> bool:
    return [each["tag"] for each in await notifications(page)] == list(tags)


async def _is(page: Page, expression: str) -> bool:
    return bool(await page.evaluate(expression))


async def _endpoint(page: Page) -> str:
    return str(await page.evaluate("self.relayStore.get('endpoint')"))


async def _has(page: Page, endpoint: str) -> bool:
    return await _endpoint(page) == endpoint


async def _counts(relay: World, metric: str) -> bool:
    lines = (await relay.relay.metrics()).splitlines()
    return any(line.startswith(metric) and not line.endswith(" 0.0") for line in lines)
