import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from jinja2 import UndefinedError

from relay.http.listeners import open_listener
from relay.http.pages import FOREVER, Pages, is_own

STYLE = "body { color: black }\n"


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pages:
    """Return the pages of a package with one template, a style and a module."""
    package = tmp_path / "paged"
    for folder in ("templates", "static"):
        (package / folder).mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "templates" / "page.html").write_text("<link href={{ asset('page.css') }}><p>{{ name }}</p>\n")
    (package / "static" / "page.css").write_text(STYLE)
    (package / "static" / "page.js").write_text("export {};\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "paged", raising=False)
    return Pages("paged", "/pages", policy={"img-src": "'self' data:"}, headers={"X-Frame-Options": "SAMEORIGIN"})


@pytest.fixture
async def client(pages: Pages) -> AsyncIterator[ClientSession]:
    app = web.Application()
    pages.add_to(app)

    async def page(_: web.Request) -> web.Response:
        return pages.page("page.html", name="<b>'ann'\"")

    app.router.add_get("/page", page)
    async with open_listener(app, "127.0.0.1", 0) as port, ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


async def test_a_page_escapes_what_it_shows_and_loads_nothing_foreign(client: ClientSession, pages: Pages) -> None:
    answer = await client.get("/page")

    assert await answer.text() == f"<link href={pages.asset('page.css')}><p>&lt;b&gt;&#39;ann&#39;&#34;</p>"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_file_is_kept_for_ever_under_the_hash_of_all_files(client: ClientSession, pages: Pages) -> None:
    answer = await client.get(pages.asset("page.css"))

    assert await answer.text() == STYLE
    assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
    assert answer.headers["Cache-Control"] == FOREVER
    assert pages.version in pages.asset("page.css")
    script = await client.get(pages.asset("page.js"))
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"


async def test_a_file_of_another_version_is_served_and_asked_for_again(client: ClientSession) -> None:
    answer = await client.get("/pages/static/0123456789abcdef/page.css")
    tag = answer.headers["ETag"]
    again = await client.get("/pages/static/0123456789abcdef/page.css", headers={"If-None-Match": tag})

    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
    assert (again.status, again.headers["ETag"], await again.read()) == (304, tag, b"")


@pytest.mark.parametrize("name", ["none.css", "..%2f__init__.py", "%2e%2e", "page.html"])
async def test_nothing_but_the_static_files_is_served(client: ClientSession, pages: Pages, name: str) -> None:
    answer = await client.get(f"/pages/static/{pages.version}/{name}")

    assert answer.status == 404


async def test_the_version_changes_with_any_file(tmp_path: Path, pages: Pages) -> None:
    (tmp_path / "paged" / "static" / "page.js").write_text("export { };\n")

    assert Pages("paged", "/pages").version != pages.version


def test_what_is_missing_is_an_error(pages: Pages) -> None:
    with pytest.raises(UndefinedError, match="name"):
        pages.page("page.html")
    with pytest.raises(KeyError, match=r"none\.css"):
        pages.asset("none.css")


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://console.example.com"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://relay.example.com:9090"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://relay.example.com:9090"}, True),
        ({"Origin": "http://relay.example.com"}, False),
        ({"Origin": "http://other.example.com:9090"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
    ],
)
def test_a_browser_says_whether_an_own_page_sent_a_request(headers: dict[str, str], own: bool) -> None:
    request = make_mocked_request("POST", "/", {"Host": "relay.example.com:9090", **headers})

    assert is_own(request) is own


def test_the_usual_port_need_not_be_named() -> None:
    request = make_mocked_request("POST", "/", {"Host": "relay.example.com", "Origin": "https://relay.example.com"})

    assert is_own(request)
