"""A person uses the console in a real browser: every page and every act, by mouse and keys, bright, dark and small.

The relay is a process of its own on the sandbox. With RELAY_SCREENSHOTS=FOLDER the tests leave pictures of all pages.
"""

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess
from tests.interop.chromium import Browser, Page, browser
from tests.interop.packages import Unavailable, unavailable
from tests.site import ANN, PASSWORD, Site, open_site
from tests.waiting import until

TOKEN: Final = "c0ffee" * 8
BEN: Final = "ben@example.com"
BENS: Final = {"platform": "apns", "token": "5b" * 32, "app": APP}
CANARY: Final = "canary-subject-of-a-mail"
PAGES: Final = ("", "?span=day", "servers", "providers", "mailboxes", "acts", "egress")
SIZES: Final = {"phone": (360, 740), "desktop": (1280, 800), "wide": (1920, 1080)}
CONTRAST: Final = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const found = rgb(getComputedStyle(e).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("option, .skip")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""
"""Returns the elements whose text has less contrast than WCAG 2.2 asks for [1.4.3, level AA]."""
UNNAMED: Final = """[...document.querySelectorAll("a, button, input:not([type=hidden]):not([hidden]), select")]
  .filter((e) => !e.hidden && !(e.labels?.length || e.textContent.trim() || e.getAttribute("aria-label")))
  .map((e) => e.outerHTML)"""
"""Returns what can be used and has no name."""
TWICE: Final = """[...document.querySelectorAll("[id]")].map((e) => e.id)
  .filter((id, number, all) => all.indexOf(id) !== number)"""


@dataclass
class World:
    """A relay with the console, and a browser."""

    site: Site
    relay: RelayProcess
    chromium: Browser
    base: str

    @asynccontextmanager
    async def page(self, width: int = 1280, height: int = 800, *, scripts: bool = True) -> AsyncIterator[Page]:
        """Open a page that is logged in, and look at its end whether it asked nobody else and broke no rule."""
        async with self.chromium.page(width, height, scripts=scripts) as page:
            await page.navigate(f"{self.base}/")
            await page.type("#token", TOKEN)
            await page.follow("main button")
            yield page
            assert not [
                url for url in page.requests if not url.startswith((self.base.removesuffix("console"), "data:"))
            ]
            assert (page.violations, page.console) == ([], [])

    async def find(self, page: Page, user: str) -> None:
        """Go to the mailbox of a user."""
        await page.navigate(f"{self.base}/mailboxes")
        await page.type("#user", user)
        await page.follow(".search button")
        await page.follow("tbody a")
        assert await page.text("h1") == user


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    token = tmp_path / "helpdesk.token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    table = "RELAY__ADMIN__TOKENS__HELPDESK"
    environ = {f"{table}__FILE": str(token), f"{table}__SCOPES": "read, act, forget"}
    try:
        async with browser() as chromium, open_site(tmp_path / "site", environ) as site:
            for user in (ANN, BEN):
                site.sandbox.eas.add_mailbox(user, PASSWORD)
            async with site.relay() as relay:
                for registered in (site.register(), site.register_android(), site.register_webpush()):
                    assert (await registered)[0] == 201
                assert (await site.register(BEN, device=BENS))[0] == 201
                await site.held(2)
                for user in (ANN, BEN):
                    site.deliver(user, subject=CANARY)
                await until(lambda: len(site.sandbox.apns.received) >= 2 and site.sandbox.fcm.received)
                yield World(site, relay, chromium, f"http://127.0.0.1:{site.sandbox.ports.ops}/console")
    except Unavailable as reason:
        unavailable(reason)


async def picture(page: Page, *names: str) -> None:
    """Leave a picture of a page where the environment asks for pictures."""
    folder = os.environ.get("RELAY_SCREENSHOTS")
    if folder:
        await page.screenshot(Path(folder) / f"{'-'.join(names)}.png", whole=True)


async def check(page: Page) -> None:
    """Check what holds of every page: readable, named, no wider than its window, no content of mail, no secret."""
    assert await page.evaluate(CONTRAST) == []
    assert await page.evaluate(UNNAMED) == []
    assert await page.evaluate(TWICE) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate("document.querySelectorAll('main, h1').length") == 2
    shown = str(await page.evaluate("document.documentElement.outerHTML"))
    for secret in (CANARY, PASSWORD, TOKEN):
        assert secret not in shown


@pytest.mark.parametrize("dark", [False, True], ids=["bright", "dark"])
async def test_every_page_is_readable_in_every_size(world: World, dark: bool) -> None:
    async with world.page() as page:
        await page.darken(dark=dark)
        for name, (width, height) in SIZES.items():
            await page.resize(width, height)
            for path in PAGES:
                await page.navigate(f"{world.base}/{path}")
                await check(page)
                await picture(page, path.strip("?") or "overview", name, "dark" if dark else "bright")
            await world.find(page, ANN)
            await check(page)
            await picture(page, "mailbox", name, "dark" if dark else "bright")
        await page.follow("header form button")
        await check(page)
        await picture(page, "login", "wide", "dark" if dark else "bright")


async def test_every_act_is_done_and_told(world: World) -> None:
    async with world.page() as page:
        await world.find(page, ANN)
        for button, told in (
            ("form[action$='/pause'] button", "Done: paused"),
            ("form[action$='/resume'] button", "Done: resumed"),
            ("section.card form[action$='/test-push'] button", "Done: a test push is on its way"),
        ):
            await page.follow(button)
            assert told in await page.text(".notice"), button
        # The test push may have left already.
        assert "waits" in await after(page, "section.card form[action$='/retry'] button")
        assert "Nothing changed" in await after(page, "form[action$='/retry'] button")
        await shows(page, "delivered", "[id^=registration-]")
        await world.site.held(2)

        await page.navigate(f"{world.base}/servers")
        await page.click("summary")
        assert "In maintenance since" in await after(page, "button.danger", "main")
        assert "In maintenance since" not in await after(page, ".acts button", "main")
        await world.site.held(2)

        await page.navigate(f"{world.base}/acts")
        assert "entries, unbroken" in await after(page, ".acts button")
        await page.navigate(f"{world.base}/egress")
        assert "unbroken, and every body is one of the templates" in await after(page, ".acts button")
        await page.click(".log summary")
        assert '"body":' in await page.text(".log pre")

        await world.find(page, BEN)
        await page.click("main > .danger-zone summary")
        assert "type its name" in await forget(page, "main > .danger-zone", "somebody")
        await page.click("main > .danger-zone summary")
        assert "Done: its registrations are gone" in await forget(page, "main > .danger-zone", BEN)
        await until(lambda: world.site.sandbox.eas.held == 1)
        await world.find(page, ANN)
        await page.click("section.card .danger-zone summary")
        assert "Done: it is gone" in await forget(page, "section.card .danger-zone", "forget")
        assert await page.evaluate("document.querySelectorAll('section.card').length") == 2
    logged = world.relay.log.read_text()
    assert "console login" in logged
    assert not [secret for secret in (CANARY, PASSWORD, TOKEN, BEN) if secret in logged]


async def after(page: Page, button: str, shown: str = ".notice") -> str:
    """Click a button; return what the page that follows shows in an element."""
    await page.follow(button)
    return await page.text(shown)


async def forget(page: Page, part: str, word: str) -> str:
    """Confirm with a word that something is forgotten; return what the next page tells."""
    await page.type(f"{part} [name=confirm]", word)
    return await after(page, f"{part} button")


async def shows(page: Page, text: str, part: str) -> None:
    """Wait until a part of a page shows a text by itself, without being loaded again."""
    await page.evaluate("window.same = true")

    async def fresh() -> bool:
        return text in str(await page.evaluate(f"document.querySelector('{part}').innerText"))

    await until(fresh)
    assert await page.evaluate("window.same")


async def test_pages_follow_the_relay_by_themselves_until_they_are_paused(world: World) -> None:
    async with world.page() as page:
        await page.navigate(f"{world.base}/mailboxes")
        await world.find(page, ANN)
        before = await page.evaluate("document.querySelectorAll('.events li').length")
        world.site.deliver(ANN, subject=CANARY)
        await page.evaluate("window.same = true")

        async def grown() -> bool:
            return bool(await page.evaluate("document.querySelectorAll('.events li').length") > before)

        await until(grown)
        assert await page.evaluate("window.same")
        await page.click("#live")
        assert await page.text("#live") == "Resume updates"
        await page.navigate(f"{world.base}/")
        await page.evaluate("document.cookie = 'other=1'")  # a page reads no session from its cookies
        assert "relay-console" not in await page.evaluate("document.cookie")


async def test_a_page_that_is_not_fresh_says_so_and_a_table_stays_where_it_was_scrolled(world: World) -> None:
    async with world.page(360, 740) as page:
        await page.wait("#by-state .scroll")  # mailboxes are counted every five seconds
        made = await page.text("#made")
        table = "document.querySelector('#by-state .scroll')"
        assert await page.evaluate(f"({table}.scrollLeft = 40, {table}.scrollLeft)") == 40

        async def renewed() -> bool:
            return await page.text("#made") != made

        await until(renewed)
        assert await page.evaluate(f"{table}.scrollLeft") == 40
        network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await page.command("Network.emulateNetworkConditions", offline=True, **network)
        await shows(page, "its numbers are old", "#stale")
        await check(page)
        await picture(page, "stale", "phone")
        page.console.clear()  # the browser writes there that it is offline
        await page.command("Network.emulateNetworkConditions", offline=False, **network)

        async def fresh() -> bool:
            return not await page.evaluate("document.querySelector('#stale').innerText")

        await until(fresh)


async def test_everything_works_without_a_script(world: World) -> None:
    async with world.page(360, 740, scripts=False) as page:
        for path in PAGES:
            await page.navigate(f"{world.base}/{path}")
        await world.find(page, ANN)
        assert "Done: paused" in await after(page, "form[action$='/pause'] button")
        await page.click("section.card .danger-zone summary")
        assert "type forget" in await forget(page, "section.card .danger-zone", "no")


async def test_keys_are_enough(world: World) -> None:
    async with world.chromium.page() as page:
        await page.navigate(f"{world.base}/")
        await focused(page, "#token")
        await page.command("Input.insertText", text=TOKEN)
        before = page.requests.copy()
        await page.press("Enter")
        await page.wait("#figures")
        assert page.requests != before

        await page.press("Tab")
        await focused(page, ".skip")
        await page.press("Enter")
        await focused(page, "#main")

        reached = await tabbed(page, ["Servers", "Mailboxes", "Log out"])
        assert reached == ["Servers", "Mailboxes", "Log out"]


async def focused(page: Page, selector: str) -> None:
    """Wait until an element has the focus, which it may get a moment after the page is loaded or a key is pressed."""

    async def has_focus() -> bool:
        return bool(await page.evaluate(f"document.activeElement.matches({selector!r})"))

    await until(has_focus)


async def tabbed(page: Page, names: Iterable[str]) -> list[str]:
    """Press Tab through a page from its beginning; return which of some names got the focus, with a visible ring."""
    await page.evaluate("document.querySelector('.skip').focus()")
    seen = []
    for _ in range(12):
        await page.press("Tab")
        name, ring = await page.evaluate(
            "[document.activeElement.textContent.trim(), getComputedStyle(document.activeElement).outlineStyle]"
        )
        if name in names:
            assert ring == "solid", name
            seen.append(name)
    return seen
