"""Debian's Chromium without a window, driven through its DevTools protocol over a WebSocket.

A page is used as a person uses it: by mouse and keys, which reach what a browser shows and no more. What it asks of the
network, writes to its console and refuses by a page's policy is noted.
"""

import asyncio
import base64
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.interop.packages import install
from tests.waiting import until

ARGUMENTS: Final = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-port=0"),
    # Else the browser looks for its maker's servers by itself, which would stand among the requests of a page.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars"),
)
STARTS: Final = 60.0  # seconds until the browser listens
ANSWERS: Final = 60.0  # seconds for one command
ENDS: Final = 10.0  # seconds until the browser has ended by itself
LARGEST: Final = 64 * 2**20  # bytes of a message; a screenshot of a long page has some
KEYS: Final[Mapping[str, tuple[str, int, str]]] = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    " ": ("Space", 32, " "),
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
}
"""Keys by their names [W3C UI Events KeyboardEvent key]: code, Windows' number, and the text that they make."""


class Refused(Exception):
    """The browser cannot do what it was told, for the reason in the text."""


class Browser:
    """A running browser."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        """Speak through a WebSocket to the whole browser; `listen` must run."""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def listen(self) -> None:
        """Take what the browser says, until the WebSocket ends."""
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                break
            told = message.json()
            if "id" in told:
                asked = self._asked.pop(told["id"], None)
                if asked is not None and not asked.done():
                    asked.set_result(told)
            elif (page := self._pages.get(told.get("sessionId", ""))) is not None:
                page.note(told["method"], told["params"])
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Refused("the browser has ended"))

    async def command(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; raises Refused."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        sent = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(sent if session is None else {**sent, "sessionId": session})
        async with asyncio.timeout(ANSWERS):
            told = await answer
        if "error" in told:
            raise Refused(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result

    def count(self, session: str, page: "Page") -> None:
        """Let a page note what the browser says of a session, until the browser ends."""
        self._pages[session] = page

    @asynccontextmanager
    async def page(self, width: int = 1280, height: int = 800, *, scripts: bool = True) -> AsyncIterator["Page"]:
        """Open a page with cookies and caches of its own, until the block ends; `scripts` are JavaScript."""
        context = (await self.command("Target.createBrowserContext", disposeOnDetach=True))["browserContextId"]
        made = await self.command("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.command("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        session = str(attached["sessionId"])
        page = self._pages[session] = Page(self, session, context)
        try:
            for domain in ("Page", "Runtime", "Network", "Log", "Audits", "ServiceWorker"):
                await page.command(f"{domain}.enable")
            await page.command("BackgroundService.startObserving", service="notifications")
            await page.command("BackgroundService.setRecording", shouldRecord=True, service="notifications")
            await page.command("Emulation.setScriptExecutionDisabled", value=not scripts)
            await page.resize(width, height)
            yield page
        finally:
            with suppress(Refused):
                await self.command("Target.disposeBrowserContext", browserContextId=context)
            del self._pages[session]


@dataclass
class Page:
    """One page, and what it did since it was opened."""

    browser: Browser = field(repr=False)
    session: str
    context: str
    """What shares its cookies, caches and permissions."""
    requests: list[str] = field(default_factory=list)
    """The URLs that it asked for."""
    console: list[str] = field(default_factory=list)
    """What it wrote to its console, what the browser wrote there, and errors that no script caught."""
    violations: list[str] = field(default_factory=list)
    """What the page's Content-Security-Policy refused: directive and what was blocked."""
    workers: dict[str, str] = field(default_factory=dict)
    """The registrations of service workers: the id of each by its scope."""
    displayed: list[str] = field(default_factory=list)
    """The titles of the notifications that were shown."""
    _loads: int = 0

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page; raises Refused."""
        return await self.browser.command(method, self.session, **parameters)

    def note(self, method: str, told: Mapping[str, Any]) -> None:
        """Note what the browser says of the page."""
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(told["url"])
            case "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(each.get("value", each.get("description"))) for each in told["args"]))
            case "Runtime.exceptionThrown":
                thrown = told["exceptionDetails"]
                self.console.append(str(thrown.get("exception", {}).get("description") or thrown["text"]))
            case "Log.entryAdded":
                self.console.append(f"{told['entry']['text']} ({told['entry'].get('url', '')})")
            case "Audits.issueAdded" if told["issue"]["code"] == "ContentSecurityPolicyIssue":
                of = told["issue"]["details"]["contentSecurityPolicyIssueDetails"]
                self.violations.append(f"{of['violatedDirective']}: {of.get('blockedURL', 'inline')}")
            case "ServiceWorker.workerRegistrationUpdated":
                self.workers |= {each["scopeURL"]: each["registrationId"] for each in told["registrations"]}
            case "BackgroundService.backgroundServiceEventReceived":
                self.displayed += _titles(told["backgroundServiceEvent"])
            case "Page.loadEventFired":
                self._loads += 1
            case _:
                pass

    async def navigate(self, url: str) -> None:
        """Go to a URL and wait until the page is loaded; raises Refused if nothing answers there."""
        before = self._loads
        went = await self.command("Page.navigate", url=url)
        if "errorText" in went:
            raise Refused(f"{url}: {went['errorText']}")
        if "loaderId" in went:  # else only the fragment changed
            await until(lambda: self._loads > before)

    async def permit(self, origin: str, name: str, setting: str = "granted") -> None:
        """Set what the person lets pages of an origin do: "granted", "denied" or "prompt", which asks and waits."""
        await self.browser.command(
            "Browser.setPermission",
            permission={"name": name},
            setting=setting,
            origin=origin,
            browserContextId=self.context,
        )

    async def push(self, scope: str, text: str) -> None:
        """Give the service worker of a scope a push, as if it came from a push service and was decrypted.

        Return once it has shown a notification: a page that asks for the notifications while the browser is about to
        show one makes the browser forget that one.
        """
        await until(lambda: scope in self.workers)
        before = len(self.displayed)
        origin = "/".join(scope.split("/")[:3])
        await self.command(
            "ServiceWorker.deliverPushMessage", origin=origin, registrationId=self.workers[scope], data=text
        )
        await until(lambda: len(self.displayed) > before)

    async def worker(self, scope: str) -> str:
        """Return the session of the service worker of a scope; from now on its requests count as the page's.

        The browser ends a worker that has nothing to do for half a minute: it is started then.
        """
        await self.command("ServiceWorker.startWorker", scopeURL=scope)

        async def running() -> list[dict[str, Any]]:
            targets = (await self.browser.command("Target.getTargets"))["targetInfos"]
            return [each for each in targets if each["type"] == "service_worker" and each["url"].startswith(scope)]

        await until(running)
        (target,) = await running()
        attached = await self.browser.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        session = str(attached["sessionId"])
        self.browser.count(session, self)
        for domain in ("Network", "Runtime", "Log"):
            await self.browser.command(f"{domain}.enable", session)
        return session

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, once its promise is kept; raises Refused with its error."""
        told = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in told:
            thrown = told["exceptionDetails"]
            raise Refused(str(thrown.get("exception", {}).get("description") or thrown["text"]))
        return told["result"].get("value")

    async def wait(self, selector: str) -> None:
        """Return once the page is loaded and shows an element; fail after a while."""
        await until(lambda: self._shows(selector))

    async def click(self, selector: str) -> None:
        """Click into the middle of the first line of an element, once it is there."""
        await self.wait(selector)
        x, y = await self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center', behavior: "
            "'instant'}); const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def follow(self, selector: str) -> None:
        """Click an element, and wait until the page that comes then is loaded."""
        await self.wait(selector)  # so that the page that is left is loaded
        before = self._loads
        await self.click(selector)
        await until(lambda: self._loads > before)

    async def type(self, selector: str, text: str) -> None:
        """Put the focus into a field, once it is there, and type a text over what stands in it."""
        await self.wait(selector)
        await self.evaluate(f"(() => {{ const e = document.querySelector({selector!r}); e.focus(); e.select?.(); }})()")
        await self.command("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press and release a key of KEYS."""
        code, number, text = KEYS[key]
        named = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        await self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **named)

    async def text(self, selector: str = "body") -> str:
        """Return the text that an element shows, once it is there."""
        await self.wait(selector)
        return str(await self.evaluate(f"document.querySelector({selector!r}).innerText"))

    async def resize(self, width: int, height: int) -> None:
        """Give the page a size in CSS pixels; below 600 it is a phone's, with touch."""
        phone = width < 600
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    async def darken(self, *, dark: bool = True) -> None:
        """Let the page see that the person likes dark pages, or bright ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of what the page shows; `whole`: with all below it."""
        taken = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(taken["data"]))

    async def _shows(self, selector: str) -> bool:
        look = (
            f"document.readyState == 'complete' && (document.querySelector({selector!r})?.checkVisibility() ?? false)"
        )
        try:
            return bool(await self.evaluate(look))
        except Refused:  # between two pages there is none that could say
            return False


@asynccontextmanager
async def browser(*arguments: str) -> AsyncIterator[Browser]:
    """Run Chromium until the block ends, installed when missing; raises packages.Unavailable where that is impossible.

    It may run as root, where its own sandbox is impossible: it is for pages of the tests only.
    """
    program = shutil.which("chromium")
    if program is None:
        await asyncio.to_thread(install, "chromium")
        program = shutil.which("chromium") or "/usr/bin/chromium"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        told = Path(folder) / "DevToolsActivePort"
        process = await asyncio.create_subprocess_exec(
            program,
            *ARGUMENTS,
            *arguments,
            *(("--no-sandbox",) if os.geteuid() == 0 else ()),
            f"--user-data-dir={folder}",
            "about:blank",
            env={**os.environ, "HOME": folder},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await until(
                lambda: process.returncode is not None or (told.exists() and told.read_text().count("\n")), STARTS
            )
            if process.returncode is not None:
                raise Refused(f"{program} ended with status {process.returncode}")
            port, path = told.read_text().split("\n")[:2]
            async with (
                ClientSession() as session,
                session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=LARGEST) as socket,
                asyncio.TaskGroup() as group,
            ):
                running = Browser(socket)
                listening = group.create_task(running.listen())
                try:
                    yield running
                finally:
                    with suppress(Refused, TimeoutError):
                        await running.command("Browser.close")
                    listening.cancel()
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait until the browser has ended; end all its processes if it does not."""
    try:
        async with asyncio.timeout(ENDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _titles(event: Mapping[str, Any]) -> list[str]:
    """Return the title of a notification that a background service says was shown; empty for other events."""
    if event["eventName"] != "Notification displayed":
        return []
    return [each["value"] for each in event["eventMetadata"] if each["key"] == "Title"]
