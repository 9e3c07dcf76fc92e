"""An emulated phone at work: it registers, gets its pushes from the sandbox, and obeys commands."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from relay.domain.clock import Clock
from relay.domain.model import Environment, Mode, Platform
from relay.sandbox.installation import APP
from relay.sandbox.phone.api import Identity, PhoneApi, Refused, Unreachable
from relay.sandbox.phone.push import Push, read_push
from relay.sandbox.phone.script import EXPECTATIONS, Command, Expectation, read_duration, read_expectation
from relay.sandbox.phone.simctl import Simulator
from relay.sandbox.phone.system import Bucket, Happening, Phone, What, text_of
from relay.sandbox.remote import SandboxRefused, order

ACCEPTED: Final = (200, 201)
POLL: Final = 10.0  # seconds that a request for pushes waits for one
LOOKS: Final = 20  # times that a phone asks what became of a test push
LOOK: Final = 0.5  # seconds between two looks
TICK: Final = 0.5  # seconds between two looks at what budgets and maintenance windows set free
WRONG: Final = {Environment.PRODUCTION: Environment.SANDBOX, Environment.SANDBOX: Environment.PRODUCTION}


class Unfulfilled(Exception):
    """An expectation of a script did not come true; the text says which."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What kind of phone it is, and whose."""

    platform: Platform
    user: str
    password: str = field(repr=False)
    environment: Environment = Environment.PRODUCTION
    """The environment of APNs that issues its device tokens."""
    classes: tuple[str, ...] = ()
    """The classes that the app asks for; none: the relay's default."""
    keeps_one: bool = False
    app: str = APP
    fid: bool = False
    """Whether the Android app registers by Firebase installation id."""


@dataclass(slots=True)
class Handset:
    """One phone in its owner's hands: the emulated system, what the provider knows it by, and what the app keeps."""

    name: str
    system: Phone
    device: dict[str, Any] = field(default_factory=dict, repr=False)
    """The device as the app names it to the relay."""
    address: str = field(default="", repr=False)
    """Device token, FID or endpoint."""
    identity: Identity | None = None


class Session:
    """The phones of one user; the current one obeys the commands, older ones lie in a drawer and still get pushes."""

    def __init__(
        self,
        plan: Plan,
        api: PhoneApi,
        control: str,
        tell: Callable[[str, str, str, float], None],
        clock: Clock,
        simulator: Simulator | None = None,
    ) -> None:
        """Set up; `tell` takes name of the phone, what happened, its text, and the time of the phone."""
        self._plan = plan
        self._api = api
        self._control = control
        self._tell = tell
        self._clock = clock
        self._simulator = simulator
        self._began = clock().timestamp()
        self._ahead = 0.0
        """Seconds that `wait` has put the phone's clock ahead."""
        self._password = plan.password
        self._wrong = False
        self._seen = 0
        self._happened: list[tuple[str, str]] = []
        """What happened that may be expected, and its text, without what was expected."""
        self._news = asyncio.Condition()
        self.handset = self._new_handset("phone")
        self._drawer: list[Handset] = []

    # Pushes.

    async def begin(self) -> None:
        """Leave out the pushes that the sandbox has already; raises SandboxRefused."""
        self._seen = len(await self._received(0))

    async def listen(self) -> None:
        """Take all pushes that the sandbox's provider accepts, until cancelled; raises SandboxRefused."""
        while True:
            seen = self._seen
            received = await self._received(seen + 1)
            self._seen = len(received)
            for entry in received[seen:] if len(received) >= seen else received:
                await self._take(entry)

    async def _received(self, least: int) -> list[Mapping[str, Any]]:
        url = f"{self._control}{self._prefix()}/received"
        try:
            async with (
                aiohttp.ClientSession() as control,
                control.get(url, params={"at_least": least, "within": POLL}) as response,
            ):
                return list((await response.json())["received"])
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise SandboxRefused(f"no sandbox answers at {self._control}") from error

    async def tick(self) -> None:
        """Let time pass, so that what waits for a budget or a maintenance window arrives."""
        while True:
            await asyncio.sleep(TICK)
            for handset in (self.handset, *self._drawer):
                await self._show(handset, handset.system.advance(self._now()))

    async def _take(self, entry: Mapping[str, Any]) -> None:
        if entry["status"] not in ACCEPTED:
            return
        for handset in (self.handset, *self._drawer):
            if entry["device_token"].lower() == handset.address.lower():
                push = read_push(self._plan.platform, entry, self._clock().timestamp())
                if push is None:
                    await self._note(handset, "unreadable", "a push that the app cannot read")
                else:
                    await self._show(handset, handset.system.receive(push, self._now()))

    async def _show(self, handset: Handset, happened: list[Happening]) -> None:
        """Tell what happened, and let the app do what it does when it runs."""
        for each in happened:
            await self._note(handset, each.what, _text(each), each.at)
            if each.what in {What.BANNER, What.REPLACED, What.WOKE}:
                await self._run_app(handset, each.push)

    async def _run_app(self, handset: Handset, push: Push) -> None:
        if self._simulator is not None and push.platform is Platform.APNS:
            await self._note(handset, "simctl", await self._simulator.push(push.payload))
        if push.nonce and handset.identity is not None:
            await self._attempt(handset, "proved", self._api.prove(handset.identity, push.nonce))

    # Commands.

    async def execute(self, command: Command) -> None:
        """Do what a command says; raises Unfulfilled, SandboxRefused, ScriptFault."""
        argument = command.arguments[0] if command.arguments else ""
        match command.name:
            case "expect":
                await self._expect(read_expectation(command.arguments))
            case "off" | "on" | "doze" | "wake" | "bucket" | "wait" | "pause" | "banners":
                await self._handle(command.name, argument)
            case "deliver" | "read" | "password" | "wipe" | "block" | "outage":
                await self._order(command)
            case _:
                try:
                    await self._use_app(command.name, argument)
                except (Refused, Unreachable) as error:  # the relay has no key to subscribe with, or does not run
                    await self._note(self.handset, "refused", str(error))

    async def _handle(self, name: str, argument: str) -> None:
        """Do something with the phone itself."""
        handset, system = self.handset, self.handset.system
        match name:
            case "off":
                await self._show(handset, system.turn_off(self._now()))
            case "on":
                await self._show(handset, system.turn_on(self._now()))
            case "doze":
                await self._show(handset, system.doze(self._now()))
            case "wake":
                await self._show(handset, system.wake(self._now()))
            case "bucket":
                system.bucket = Bucket(argument)
            case "wait":
                self._ahead += read_duration(argument)
                for each in (handset, *self._drawer):
                    await self._show(each, each.system.advance(self._now()))
            case "pause":
                await asyncio.sleep(read_duration(argument))
            case _:
                shown = "; ".join(f"{banner.title} {banner.body}".strip() for banner in system.banners.values())
                await self._note(handset, "banners", shown or "none")

    async def _order(self, command: Command) -> None:
        """Order something from the sandbox that concerns the user's mailbox."""
        fields: dict[str, Any] = {} if command.name == "outage" else {"user": self._plan.user}
        match command.name, command.arguments:
            case "deliver", (cls,):
                fields["class"] = cls
            case "password", (password,):
                fields["password"] = password
            case "block", (_,):
                fields["end"] = True
            case "outage", (of, *end):
                fields |= {"of": of, "end": bool(end)}
            case _:
                pass
        await order(self._control, command.name, fields)

    async def _use_app(self, name: str, argument: str) -> None:
        """Let the app do something, or the system something to it."""
        match name:
            case "register":
                self.handset.system.mode = Mode(argument or Mode.ALERT)
                await self._register()
            case "open":
                await self._show(self.handset, self.handset.system.open_app(self._now()))
                await self._ask("registration", "get")
            case "new-token":
                await self._get_token()
                await self._ask("token sent", "patch", {"device": self._address()})
            case "environment":
                self._wrong = argument == "wrong"
                await self._ask("environment sent", "patch", {"device": self._address()})
            case "reinstall":
                await self._reinstall()
            case "restore":
                await self._restore(fresh=argument == "fresh")
            case "login":
                self._password = argument
                await self._ask("credential sent", "patch", {"credential": self._credential()})
            case "logout":
                await self._ask("logged out", "delete")
                self._forget()
            case _:
                await self._test()

    async def _register(self) -> None:
        handset = self.handset
        if not handset.address:
            await self._get_token()
        handset.identity = handset.identity or Identity()
        handset.system.registration = handset.identity.id
        device = {"platform": self._plan.platform, "app": self._plan.app, **self._address()}
        body = {"mailbox": self._plan.user, "credential": self._credential(), "device": device}
        body |= {"mode": handset.system.mode} | ({"classes": self._plan.classes} if self._plan.classes else {})
        await self._attempt(handset, "registered", self._api.put(handset.identity, body))

    async def _get_token(self) -> None:
        """Let the system give the app a device token."""
        handset, environment = self.handset, self._plan.environment
        match self._plan.platform:
            case Platform.APNS:
                handset.address = (await order(self._control, "token", {"environment": environment}))["token"]
                handset.device = {"token": handset.address, "environment": environment}
            case Platform.FCM if self._plan.fid:
                handset.address = f"{secrets.choice('cdef')}{secrets.token_urlsafe(16)[:21]}"
                handset.device = {"fid": handset.address}
            case Platform.FCM:
                handset.address = f"{secrets.token_urlsafe(16)[:22]}:{secrets.token_urlsafe(100)}"
                handset.device = {"token": handset.address}
            case Platform.WEBPUSH:
                key = {"vapid_public_key": await self._api.vapid_key()}
                handset.device = await order(self._control, "push/webpush/subscriptions", key)
                handset.address = handset.device["endpoint"]

    def _address(self) -> dict[str, Any]:
        """Return the device as the app names it, perhaps with the wrong environment."""
        device = self.handset.device
        wrong = self._wrong and "environment" in device
        return {**device, "environment": WRONG[Environment(device["environment"])]} if wrong else device

    def _credential(self) -> dict[str, str]:
        return {"kind": "basic", "password": self._password}

    async def _reinstall(self) -> None:
        """Remove the app and install it: it keeps nothing, and its old token is gone."""
        await order(self._control, "gone", {"token": self.handset.address})
        self._forget()
        await self._get_token()
        await self._register()

    async def _restore(self, *, fresh: bool) -> None:
        """Take a new phone into use, from a backup of this one, which goes to the drawer with its token."""
        old = self.handset
        old.name = f"old phone {len(self._drawer) + 1}"
        self._drawer.append(old)
        self.handset = self._new_handset("phone")
        self.handset.system.mode = old.system.mode
        await self._get_token()
        if fresh or old.identity is None:
            await self._register()
            return
        self.handset.identity, self.handset.system.registration = old.identity, old.system.registration
        await self._ask("token sent", "patch", {"device": self._address()})

    async def _test(self) -> None:
        identity = self.handset.identity
        if identity is None:
            await self._note(self.handset, "refused", "the app is not registered")
            return
        try:
            test = (await self._api.test_push(identity))["test"]
            for _ in range(LOOKS):
                if test.get("state") != "queued":
                    break
                await asyncio.sleep(LOOK)
                test = await self._api.test_result(identity, str(test["id"]))
        except (Refused, Unreachable) as error:
            await self._note(self.handset, "refused", str(error))
            return
        words = [str(test[key]) for key in ("state", "reason") if test.get(key)]
        await self._note(self.handset, "test", " ".join(words))

    async def _ask(self, what: str, method: str, *body: Mapping[str, Any]) -> None:
        """Send a request for the registration of the phone, and tell its state."""
        handset = self.handset
        if handset.identity is None:
            await self._note(handset, "refused", "the app is not registered")
            return
        await self._attempt(handset, what, getattr(self._api, method)(handset.identity, *body))

    async def _attempt(self, handset: Handset, what: str, request: Any) -> None:
        """Send a request, and tell what the relay answered; a registration that has ended is forgotten."""
        try:
            answer = await request
        except Unreachable as error:
            await self._note(handset, "refused", str(error))
            return
        except Refused as refused:
            await self._note(handset, "refused", str(refused))
            if refused.status in {401, 410}:
                handset.identity, handset.system.registration = None, ""
            return
        await self._note(handset, what, _state(answer or {}))

    # Expectations.

    async def _expect(self, expected: Expectation) -> None:
        """Return once something is so; what happened fulfils one expectation only. Raises Unfulfilled."""
        if expected.subject == "nothing":
            before = len(self._happened)
            await asyncio.sleep(expected.within)
            if found := self._happened[before:]:
                raise Unfulfilled(f"nothing was expected, but: {'; '.join(' '.join(each) for each in found)}")
            return
        try:
            async with asyncio.timeout(expected.within):
                await self._fulfilled(expected)
        except TimeoutError:
            instead = "; ".join(" ".join(each) for each in self._happened) or "nothing"
            shown = f"{expected.subject} {expected.words}".strip()
            raise Unfulfilled(f"{shown!r} was expected within {expected.within:g} s, but: {instead}") from None

    async def _fulfilled(self, expected: Expectation) -> None:
        match expected.subject:
            case "banners":
                await self._until(lambda: len(self.handset.system.banners) == int(expected.words))
            case "state":
                while expected.words not in await self._current_states():  # noqa: ASYNC110 -- another process has the state
                    await asyncio.sleep(LOOK)
            case subject:
                await self._until(lambda: self._found(subject, expected.words))

    async def _until(self, fact: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(fact)

    def _found(self, what: str, words: str) -> bool:
        """Return whether something happened that no other expectation had, and take it."""
        for happening in self._happened:
            if happening[0] == what and words.lower() in happening[1].lower():
                self._happened.remove(happening)
                return True
        return False

    async def _current_states(self) -> list[str]:
        """Return the states of registration and mailbox, and its reason; `none` without a registration, or a code."""
        if self.handset.identity is None:
            return ["none"]
        try:
            return _state(await self._api.get(self.handset.identity)).split()
        except Refused as refused:
            return [refused.code]
        except Unreachable:
            return ["unreachable"]

    # The rest.

    def _new_handset(self, name: str) -> Handset:
        system = Phone(self._plan.platform, keeps_one=self._plan.keeps_one, now=self._now())
        return Handset(name, system)

    def _forget(self) -> None:
        handset = self.handset
        handset.identity, handset.system.registration = None, ""
        handset.system.forget(self._now())

    def _now(self) -> float:
        """Return the time of the phone: seconds since the session began, with those of `wait`."""
        return self._clock().timestamp() - self._began + self._ahead

    def _prefix(self) -> str:
        if self._plan.platform is Platform.APNS and self._plan.environment is Environment.SANDBOX:
            return "/push/apns-sandbox"
        return f"/push/{self._plan.platform.value}"

    async def _note(self, handset: Handset, what: str, text: str, at: float | None = None) -> None:
        if what in EXPECTATIONS:
            self._happened.append((what, text))
        self._tell(handset.name, what, text, self._now() if at is None else at)
        async with self._news:
            self._news.notify_all()


def _text(happening: Happening) -> str:
    """Return what a person reads of a happening."""
    title, body = text_of(happening.push)
    push = happening.push
    about = f"{push.kind} {push.cls}".strip()
    if happening.what in {What.BANNER, What.REPLACED}:
        return f"{title}: {body}" if body else title
    return f"{about} ({happening.why})" if happening.why else about


def _state(answer: Mapping[str, Any]) -> str:
    """Return what a person reads of a registration."""
    mailbox = answer.get("mailbox")
    words = [answer.get("state"), *((mailbox.get("state"), mailbox.get("reason")) if isinstance(mailbox, dict) else ())]
    return " ".join(str(word) for word in words if word)
