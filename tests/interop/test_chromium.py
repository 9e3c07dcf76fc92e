"""The driver of the browser does and notes what a test of a page relies on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from relay.http.listeners import open_listener
from tests.interop.chromium import Browser

PAGE = """<!doctype html><title>A page</title><meta name=viewport content=width=device-width>
<style>body { color: red }</style>
<form method=post><label for=name>Name</label> <input id=name name=name value=before><button>Send</button></form>
<img src=http://other.invalid/picture.png alt="">
<script src=/script.js></script>"""
POLICY = "default-src 'none'; script-src 'self'; form-action 'self'"
SCRIPT = """
console.log(`hello ${matchMedia("(prefers-color-scheme: dark)").matches}`);
document.title = "Changed";
"""


@pytest.fixture
async def site() -> AsyncIterator[str]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def took(request: web.Request) -> web.Response:
        given = str((await request.post())["name"])
        return web.Response(text=f"<!doctype html><p id=took>{given}</p>", content_type="text/html")

    async def script(_: web.Request) -> web.Response:
        return web.Response(text=SCRIPT, content_type="text/javascript")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_post("/", took)
    app.router.add_get("/script.js", script)
    async with open_listener(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_page_is_used_by_mouse_and_keys_and_watched(chromium: Browser, site: str, tmp_path: Path) -> None:
    async with chromium.page(360, 640) as page:
        await page.darken()
        await page.navigate(f"{site}/")
        assert await page.evaluate("document.title + innerWidth") == "Changed360"
        assert "hello true" in page.console
        assert [each.partition(":")[0] for each in page.violations] == ["style-src-elem", "img-src"]
        assert f"{site}/script.js" in page.requests
        await page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")

        await page.type("#name", "ann")
        await page.follow("button")
        assert await page.text("#took") == "ann"

        await page.navigate(f"{site}/")
        for key in ("Tab", "Tab", "Enter"):
            await page.press(key)
        assert await page.text("#took") == "before"


async def test_pages_share_no_cookies_and_run_no_scripts_when_told_so(chromium: Browser, site: str) -> None:
    async with chromium.page() as first, chromium.page(scripts=False) as second:
        await first.navigate(f"{site}/")
        await first.evaluate("document.cookie = 'name=value'")
        await second.navigate(f"{site}/")

        assert await second.evaluate("document.title + document.cookie") == "A page"
