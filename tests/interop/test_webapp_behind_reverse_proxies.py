"""The web app in Debian's Chromium behind real reverse proxies, which publish it as its page says."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from relay.sandbox.installation import Ports
from relay.sandbox.process import open_relay
from relay.sandbox.sandbox import open_sandbox
from tests.acceptance.test_reload import replace
from tests.interop.chromium import Page, browser
from tests.interop.packages import Unavailable, unavailable
from tests.interop.reverse_proxies import NAMES, Setup, running
from tests.interop.webapp_world import PASSWORD, USER, World, notifications
from tests.ports import free_ports
from tests.waiting import until


def trusting(certificate: Path) -> str:
    """Return the argument with which Chromium trusts a certificate, as service workers demand."""
    key = load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={b64encode(digest).decode()}"


@pytest.fixture(params=NAMES)
async def visited(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[World, Page]]:
    """Run the sandbox and a relay behind a proxy, and open a page of a browser."""
    plain, mail, api, ops = free_ports(4)
    async with AsyncExitStack() as stack:
        opened = open_sandbox(tmp_path / "sandbox", Ports(api=api, ops=ops), level="debug")
        sandbox = await stack.enter_async_context(opened)
        sandbox.eas.add_mailbox(USER, PASSWORD)
        replace(sandbox.toml, 'certificate_file = "api.pem"\nkey_file = "api.pem"\n', "")
        certificate, ports = sandbox.folder / "api.pem", sandbox.ports
        environ = {
            "RELAY__API__HOST": "127.0.0.1",
            "RELAY__API__PORT": str(plain),
            "RELAY__API__PROXIES": "127.0.0.1",
            "RELAY__API__PROVE_POSSESSION": "webpush",
            "RELAY__WEBAPP__ORIGIN": f"https://localhost:{ports.api}",
        }
        setup = Setup(ports.api, plain, mail, ports.eas, certificate, sandbox.folder / "ca.pem", web_app=True)
        try:
            stack.enter_context(running(request.param, setup))
            chromium = await stack.enter_async_context(browser(trusting(certificate)))
        except Unavailable as reason:
            unavailable(reason)
        relay = await stack.enter_async_context(open_relay(sandbox.toml, ports.ops, environ=environ))
        yield World(sandbox, relay, environ), await stack.enter_async_context(chromium.page(360, 740))


async def test_a_person_signs_in_and_a_mail_rings(visited: tuple[World, Page]) -> None:
    relay, page = visited
    await relay.register(page)
    relay.sandbox.eas.deliver(USER)
    await relay.pass_on_until(page, 3, "new-items")

    async def shown() -> bool:
        return any(each["title"] == "New mail" for each in await notifications(page))

    await until(shown)
    assert page.violations == []
    assert page.console == []
    for path, status in {"/app": 200, "/app/signed-in": 200, "/apps": 0, "/metrics": 0, "/": 0}.items():
        found = await page.evaluate(f"fetch({path!r}).then((each) => each.status)")
        assert found == status if status else found in {403, 404}, path
