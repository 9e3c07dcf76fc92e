"""Helpers of the tests of the web app: sandbox, relay and browser, whose push service is that of the sandbox."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relay.push.webpush.vapid import public_key
from relay.sandbox.installation import Ports
from relay.sandbox.process import RelayProcess, open_relay
from relay.sandbox.sandbox import Sandbox, open_sandbox
from tests.interop.chromium import Page
from tests.ports import free_ports
from tests.waiting import SOON

USER: Final = "ann@example.com"
PASSWORD: Final = "canary-password-of-ann"
OPEN_URL: Final = "https://mail.example.com/owa/"
PUSHES: Final = """
(() => {
  const given = %s, key = %s;
  const bytes = Uint8Array.from(atob(key.replaceAll('-', '+').replaceAll('_', '/')), (each) => each.charCodeAt(0));
  const subscription = () => ({
    endpoint: given.endpoint,
    options: { applicationServerKey: bytes.buffer },
    toJSON: () => ({ ...given, expirationTime: null, later: 'unknown' }),
    unsubscribe: async () => {
      localStorage.removeItem('subscribed');
      localStorage.setItem('ended', '1');
      return true;
    },
  });
  PushManager.prototype.getSubscription = async () => localStorage.getItem('subscribed') ? subscription() : null;
  PushManager.prototype.subscribe = async (options) => {
    if (!options.userVisibleOnly) throw new TypeError('userVisibleOnly');
    localStorage.setItem('subscribed', '1');
    return subscription();
  };
})();
"""
"""Puts a subscription at the sandbox in the place of the browser's own, which needs the Internet."""

KEPT: Final = """
(async () => {
  const values = {}, cached = [];
  const names = ['registration', 'endpoint', 'quiet', 'welcomed', 'skipped', 'receipts', 'unanswered', 'authorization'];
  for (const name of names)
    values[name] = await self.relayStore.get(name);
  for (const name of await caches.keys())
    for (const request of await (await caches.open(name)).keys()) cached.push(request.url);
  return { values, cached, local: { ...localStorage }, cookies: document.cookie };
})()
"""

CLICK: Final = """
(async () => {
  const notification = (await registration.getNotifications({ tag: %s }))[0];
  let opened = '';
  clients.openWindow = async (address) => void (opened = address);
  const event = new NotificationEvent('notificationclick', { notification });
  const under = [];
  event.waitUntil = (work) => under.push(work);
  self.dispatchEvent(event);
  await Promise.all(under);
  return opened;
})()
"""
"""Only a person can open a window; so what is opened is noted in its place."""

REPLACED: Final = """
(async () => {
  const given = %s;
  const subscription = { endpoint: given.endpoint, toJSON: () => given };
  PushManager.prototype.getSubscription = async () => null;
  PushManager.prototype.subscribe = async () => subscription;
  const event = new ExtendableEvent('pushsubscriptionchange');
  const under = [];
  event.waitUntil = (work) => under.push(work);
  self.dispatchEvent(event);
  await Promise.all(under);
})()
"""
"""The browser says that it has replaced the subscription."""

DECLARED: Final = """
(async () => {
  const { notification } = %s;
  const shown = [];
  ServiceWorkerRegistration.prototype.showNotification = async (title, options) => {
    if (!options.navigate) throw new TypeError('NotificationOptions without a valid navigate');
    shown.push({ title, ...options });
  };
  const event = new PushEvent('push');
  Object.defineProperty(event, 'notification', { value: notification });
  const under = [];
  event.waitUntil = (work) => under.push(work);
  const began = performance.now();
  self.dispatchEvent(event);
  const ends = await Promise.allSettled(under);
  return { shown, ends: ends.map(({ status }) => status), seconds: (performance.now() - began) / 1000 };
})()
"""
"""A declarative push as WebKit has it: a notification and no data, and another one in its place needs an address."""

SILENCE: Final = """
self.fetch = (path, { signal }) =>
  new Promise((_, fail) => signal.addEventListener('abort', () => fail(signal.reason)));
"""
"""Nothing answers a script, as outside the company's network."""


@dataclass
class World:
    """Sandbox and relay."""

    sandbox: Sandbox
    relay: RelayProcess
    environ: Mapping[str, str]
    """The settings of the relay besides those in its file."""

    @property
    def origin(self) -> str:
        return self.environ.get("RELAY__WEBAPP__ORIGIN", f"http://localhost:{self.sandbox.ports.web}")

    @property
    def url(self) -> str:
        return f"{self.origin}/app/"

    async def subscribe(self, page: Page, key: str = "") -> str:
        """Let the browser subscribe at the sandbox's push service from the next page on; return the endpoint.

        With a `key`, the subscription that the browser has was made for that one instead of the relay's.
        """
        given = self.sandbox.webpush.subscribe(self.key)
        key = key or self.key
        await page.command(
            "Page.addScriptToEvaluateOnNewDocument", source=PUSHES % (json.dumps(given), json.dumps(key))
        )
        return str(given["endpoint"])

    async def resubscribe(self, page: Page) -> str:
        """Let the browser have another subscription in the page that is open; return its endpoint."""
        given = self.sandbox.webpush.subscribe(self.key)
        await page.evaluate(PUSHES % (json.dumps(given), json.dumps(self.key)))
        return str(given["endpoint"])

    async def replace_subscription(self, page: Page) -> str:
        """Let the browser replace the subscription while no page hears of it; return the new endpoint."""
        given = self.sandbox.webpush.subscribe(self.key)
        await in_worker(page, self.url, REPLACED % json.dumps(given))
        return str(given["endpoint"])

    @property
    def key(self) -> str:
        """The public key that the relay gives out."""
        return public_key((self.sandbox.folder / "vapid.pem").read_bytes())

    @property
    def pushed(self) -> int:
        """The number of pushes that the push service has."""
        return len(self.sandbox.webpush.received)

    async def pass_on(self, page: Page, number: int) -> dict[str, Any]:
        """Wait until the push service has that many pushes, and let the service worker have the last of them."""
        pushes = await self.sandbox.webpush.wait(number, SOON)
        text = self.sandbox.webpush.open(pushes[number - 1]).decode()
        await page.push(self.url, text)
        read: dict[str, Any] = json.loads(text)
        return read

    async def declare(self, page: Page, number: int) -> dict[str, Any]:
        """Wait for that push, and let the service worker have it as WebKit does; return what it did with it."""
        pushes = await self.sandbox.webpush.wait(number, SOON)
        text = self.sandbox.webpush.open(pushes[number - 1]).decode()
        did: dict[str, Any] = await in_worker(page, self.url, DECLARED % text)
        return did

    async def pass_on_until(self, page: Page, number: int, kind: str) -> dict[str, Any]:
        """Pass pushes on, from that one, until one is of a kind; return it. On a busy host a challenge comes again."""
        while (read := await self.pass_on(page, number))["notification"]["data"]["kind"] != kind:
            number += 1
        return read

    async def begin(self, page: Page, permission: str = "granted") -> None:
        """Open the web app, and go on to the page after the welcome."""
        await page.permit(self.origin, "notifications", permission)
        await page.navigate(self.url)
        await page.click('[data-act="begin"]')

    async def sign_in(self, page: Page, password: str = PASSWORD, mailbox: str = USER) -> None:
        """Fill in the form and send it."""
        await page.type("#mailbox", mailbox)
        await page.type("#password", password)
        await page.click('[data-form="sign-in"] button')

    async def register(self, page: Page) -> None:
        """Go all the way to the page about the state, the device confirmed and the first test push shown."""
        already = self.pushed
        await self.subscribe(page)
        await self.begin(page)
        await self.sign_in(page)
        await page.wait("#status")
        await self.pass_on(page, already + 1)
        await page.wait('[data-condition="well"]')
        await self.pass_on_until(page, already + 2, "test")
        await page.wait('[data-notice="test-delivered"]')


async def notifications(page: Page) -> list[dict[str, Any]]:
    """Return the notifications that the browser shows."""
    found: list[dict[str, Any]] = await page.evaluate(
        "navigator.serviceWorker.ready.then(r => r.getNotifications()).then(all => "
        "all.map(n => ({title: n.title, body: n.body, tag: n.tag, lang: n.lang, silent: n.silent, data: n.data})))"
    )
    return found


async def in_worker(page: Page, scope: str, expression: str) -> Any:
    """Return the value of an expression in the service worker of a scope, once its promise is kept."""
    told = await page.browser.command(
        "Runtime.evaluate",
        await page.worker(scope),
        expression=expression,
        awaitPromise=True,
        returnByValue=True,
    )
    return told["result"].get("value")


async def click(page: Page, scope: str, tag: str) -> str:
    """Click on the notification with a tag, as the service worker hears of it; return the address that it opens."""
    return str(await in_worker(page, scope, CLICK % json.dumps(tag)))


async def kept(page: Page) -> str:
    """Return everything that the browser keeps for the web app, as text."""
    return json.dumps(await page.evaluate(KEPT))


@asynccontextmanager
async def world(folder: Path, **settings: str) -> AsyncIterator[World]:
    """Run a sandbox with the mailbox of ann, and a relay whose web app asks for the proof."""
    async with AsyncExitStack() as stack:
        api, ops = free_ports(2)  # no outgoing connection has them when the relay starts, nor when it starts again
        ports = Ports(api=api, ops=ops)
        sandbox = await stack.enter_async_context(open_sandbox(folder / "sandbox", ports, level="debug"))
        sandbox.eas.add_mailbox(USER, PASSWORD)
        environ = {"RELAY__API__PROVE_POSSESSION": "webpush", "RELAY__WEBAPP__OPEN_URL": OPEN_URL, **settings}
        relay = await stack.enter_async_context(open_relay(sandbox.toml, sandbox.ports.ops, environ=environ))
        yield World(sandbox, relay, environ)
