from datetime import UTC, datetime, timedelta
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.commands.cookies import (
    ATTRIBUTE,
    FAILURES,
    KEPT,
    LARGEST,
    LONGEST,
    OCTETS,
    READ,
    Cookie,
    CookieJar,
    default_path,
    domain_matches,
    header,
    merge,
    path_matches,
    read_date,
)

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
THEN = NOW.timestamp()
PAST = "Expires=Thu, 01 Jan 1970 00:00:00 GMT"


def kept(*lines: str, url: str = URL, before: tuple[Cookie, ...] = ()) -> tuple[Cookie, ...]:
    return merge(before, lines, url, THEN)


def sent(*lines: str, url: str = URL, to: str = URL) -> str:
    return header(kept(*lines, url=url), to, THEN)


@pytest.mark.parametrize(
    ("line", "back"),
    [
        (
            "X-BackEndCookie=S=u56L=; expires=Tue, 29-Dec-2026 12:00:00 GMT; path=/Microsoft-Server-ActiveSync; secure",
            "X-BackEndCookie=S=u56L=",
        ),
        ("ClientId=0A1B2C; expires=Mon, 29-Nov-2027 12:00:00 GMT; path=/; secure", "ClientId=0A1B2C"),
        (
            "ARRAffinity=4d2f6a;Path=/;HttpOnly;Secure;Domain=mail.example.com",
            "ARRAffinity=4d2f6a",
        ),
        (
            "ARRAffinitySameSite=4d2f6a;Path=/;HttpOnly;SameSite=None;Secure;Domain=mail.example.com",
            "ARRAffinitySameSite=4d2f6a",
        ),
        ("BIGipServer~Common~pool_eas=!k2f/9+Z==; path=/; Httponly; Secure", "BIGipServer~Common~pool_eas=!k2f/9+Z=="),
        (
            "AWSALB=a1B/2+c==; Expires=Sun, 06 Dec 2026 12:00:00 GMT; Path=/",
            "AWSALB=a1B/2+c==",
        ),
        (
            "AWSALBCORS=a1B/2+c==; Expires=Sun, 06 Dec 2026 12:00:00 GMT; Path=/; SameSite=None; Secure",
            "AWSALBCORS=a1B/2+c==",
        ),
        (
            "NSC_wtfswfs=ffffffffaf1e45;expires=Sun, 29-Nov-2026 12:20:00 GMT;path=/;secure",
            "NSC_wtfswfs=ffffffffaf1e45",
        ),
        ("SERVERID=web1|ZlQ|ZlP; path=/", "SERVERID=web1|ZlQ|ZlP"),
        ("ZM_AUTH_TOKEN=0_ab12;Path=/;Secure;HttpOnly", "ZM_AUTH_TOKEN=0_ab12"),
        ('state={"node":"a,b","n":[1,2]}; Path=/', 'state={"node":"a,b","n":[1,2]}'),
        ('quoted="a b\\"c"; Path=/', 'quoted="a b\\"c"'),
        ('half="open; Path=/', 'half="open'),
        ("  spaced \t=  v w \t; Path=/", "spaced=v w"),
        ("empty=; Path=/", "empty="),
        ("name=Käse; Path=/", "name=Käse"),
        ("a=1; Partitioned; Priority=High; Made-Up=x=y; ; =z", "a=1"),
        ("b/c=3", "b/c=3"),
    ],
)
def test_a_value_goes_back_as_it_came(line: str, back: str) -> None:
    assert sent(line) == back


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "=nameless",
        "\x00=1",
        "x\x01y=2",
        "v=a\x7f",
        "v=a\r\nX: y",
        "v=\udcff",
        f"big={'x' * LARGEST}",
        f"wide={'ä' * (LARGEST // 2)}",
        "d=1; Domain=other.example.com",
        "d=1; Domain=com",
        "d=1; Domain=ail.example.com",
        f"a=1; {PAST}",
        "a=1; Max-Age=0",
        "a=1; Max-Age=-1",
    ],
)
def test_what_is_no_usable_cookie_is_ignored(line: str) -> None:
    assert [cookie.name for cookie in kept("good=1", line)] == ["good"]


def test_a_new_value_replaces_the_old_one_and_keeps_its_age() -> None:
    first = merge(kept("a=1"), ("b=2",), URL, THEN + 1)
    second = merge(first, ("a=3",), URL, THEN + 60)

    assert header(second, URL, THEN + 60) == "a=3; b=2"
    assert second[-1].created == THEN


def test_nothing_set_changes_nothing() -> None:
    before = kept("a=1")

    assert merge(before, (), URL, THEN) == before


@pytest.mark.parametrize("deleting", [f"a=; {PAST}", "a=gone; Max-Age=0", "a=; max-age=-99999", f"a=; {PAST}; Path=/"])
def test_a_server_deletes_its_cookie(deleting: str) -> None:
    assert kept(deleting, before=kept("a=1", "b=2")) == kept("b=2")


@pytest.mark.parametrize("other", [f"a=; {PAST}; Path=/eas", f"a=; {PAST}; Domain=example.com", f"A=; {PAST}"])
def test_a_cookie_of_another_path_domain_or_name_is_another_one(other: str) -> None:
    assert header(kept(other, before=kept("a=1")), URL, THEN) == "a=1"


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ("Max-Age=60", 60.0),
        (f"Max-Age=60; {PAST}", 60.0),
        (f"{PAST}; max-AGE=60", 60.0),
        ("Max-Age=60; Max-Age=90", 90.0),
        ("Max-Age=abc; Expires=Sun, 29 Nov 2026 12:01:00 GMT", 60.0),
        (f"Max-Age={'9' * 1000}", LONGEST),
        (f"Max-Age={'9' * (ATTRIBUTE + 1)}; Max-Age=60", 60.0),
        ("Expires=Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
    ],
)
def test_a_cookie_ends_when_the_server_says(attributes: str, seconds: float) -> None:
    cookies = kept(f"a=1; {attributes}")

    assert header(cookies, URL, THEN + seconds - 1) == "a=1"
    assert header(cookies, URL, THEN + seconds) == ""
    assert merge(cookies, (), URL, THEN + seconds) == ()


@pytest.mark.parametrize("attributes", ["Expires=tomorrow", "Expires=", "Max-Age", "Max-Age=1.5", "Max-Age=\u0661"])
def test_a_cookie_whose_end_cannot_be_read_stays(attributes: str) -> None:
    assert header(kept(f"a=1; {attributes}"), URL, THEN + 10 * LONGEST) == "a=1"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        ("Sun Nov  6 08:49:37 1994", (1994, 11, 6, 8, 49, 37)),
        ("Tue, 1-Dec-26 1:2:3 GMT", (2026, 12, 1, 1, 2, 3)),
        ("Thu, 01-Jan-1970 00:00:01 GMT", (1970, 1, 1, 0, 0, 1)),
        ("Thu, 01 Jan 70 00:00:01 GMT", (1970, 1, 1, 0, 0, 1)),
        ("01 Jan 69 00:00:01", (2069, 1, 1, 0, 0, 1)),
        ("2030 dezember 24 DECEMBER 18:30:00pm", (2030, 12, 24, 18, 30, 0)),
        ("Wed, 31 Dec 1600 00:00:00 GMT", None),
        ("Mon, 31 Feb 2027 00:00:00 GMT", None),
        ("Mon, 01 Feb 2027 24:00:00 GMT", None),
        ("Mon, 01 Feb 2027 00:60:00 GMT", None),
        ("Mon, 01 Feb 2027 00:00:60 GMT", None),
        ("Mon, 00 Feb 2027 00:00:00 GMT", None),
        ("Mon, 01 Feb 12027 00:00:00 GMT", None),
        ("Mon, 001 Feb 2027 00:00:00 GMT", None),
        ("Mon, 01 Foo 2027 00:00:00 GMT", None),
        ("Mon, 01 Feb 2027 00:00 GMT", None),
        ("Mon, 01 Feb 2027 0:0:000 GMT", None),
        ("01 Feb 00:00:00", None),
        ("-1", None),
        ("0", None),
        ("", None),
    ],
)
def test_reads_dates_as_browsers_do(text: str, moment: tuple[int, int, int, int, int, int] | None) -> None:
    assert read_date(text) == (None if moment is None else datetime(*moment, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("attributes", "to", "goes"),
    [
        ("", URL, True),
        ("", "https://other.example.com/Microsoft-Server-ActiveSync", False),
        ("", "https://sub.mail.example.com/Microsoft-Server-ActiveSync", False),
        ("Domain=.Example.COM", "https://other.example.com/Microsoft-Server-ActiveSync", True),
        ("Domain=example.com", "https://badexample.com/Microsoft-Server-ActiveSync", False),
        ("Domain=", "https://other.example.com/", False),
        ("Path=/owa", URL, False),
        ("Path=/owa", "https://mail.example.com/owa/x", True),
        ("Path=/owa", "https://mail.example.com/owally", False),
        ("Path=relative", URL, True),
        ("Path=/microsoft-server-activesync", URL, False),
        ("Secure", URL, True),
        ("Secure", URL.replace("https", "http"), False),
        ("", URL.replace("https", "http"), True),
        ("", f"{URL}?Cmd=Ping&User=ann", True),
        ("", "https://MAIL.example.com:4443", True),
    ],
)
def test_a_cookie_goes_where_it_belongs_only(attributes: str, to: str, goes: bool) -> None:
    assert sent(f"a=1; {attributes}", to=to) == ("a=1" if goes else "")


def test_a_secure_cookie_is_not_taken_without_tls() -> None:
    assert kept("a=1; Secure", url=URL.replace("https", "http")) == ()


def test_a_host_that_is_an_address_has_no_domain_above_it() -> None:
    assert domain_matches("192.0.2.1", "192.0.2.1")
    assert not domain_matches("192.0.2.1", "0.2.1")
    assert sent("a=1; Domain=192.0.2.1", url="https://192.0.2.1/eas", to="https://192.0.2.1/eas") == "a=1"
    assert sent("a=1", url="https://[2001:db8::1]/eas", to="https://[2001:db8::1]:8443/eas") == "a=1"


@pytest.mark.parametrize(
    ("path", "default"), [("", "/"), ("/", "/"), ("eas", "/"), ("/eas", "/"), ("/a/b", "/a"), ("/a/", "/a")]
)
def test_the_default_path_is_the_folder_of_the_request(path: str, default: str) -> None:
    assert default_path(path) == default


def test_a_path_that_ends_with_a_slash_has_all_below_it() -> None:
    assert path_matches("/a/b", "/a/")
    assert path_matches("/a/b", "/a")
    assert not path_matches("/a", "/a/")


def test_longer_paths_go_first_then_older_cookies() -> None:
    first = kept("old=1; Path=/", "deep=2; Path=/Microsoft-Server-ActiveSync")
    both = merge(first, ("new=3; Path=/",), URL, THEN + 1)

    assert header(both, URL, THEN + 1) == "deep=2; old=1; new=3"


def test_keeps_the_newest_of_too_many() -> None:
    cookies = kept(*(f"c{n}=v" for n in range(READ + 10)))

    assert [cookie.name for cookie in cookies] == [f"c{n}" for n in range(READ - KEPT, READ)]


def test_keeps_the_newest_of_too_large_ones() -> None:
    cookies = kept(*(f"c{n}={'x' * 3000}" for n in range(5)))

    assert [cookie.name for cookie in cookies] == ["c3", "c4"]
    assert sum(cookie.octets for cookie in cookies) <= OCTETS


def test_a_value_is_not_shown() -> None:
    assert "secret" not in repr(kept("a=secret"))


@pytest.mark.parametrize(
    "line", ['a="' + "\\" * 8000 + '"', "a=" + ";" * 8000, "a=" + "\\" * 8000, "a=1" + "; b=c" * 1600]
)
def test_sixty_headers_of_eight_kilobytes_take_no_time(line: str) -> None:
    began = process_time()
    kept(*[line] * 60)

    # Seconds, on a slow machine under coverage, too; the standard library's parser needs 25 for the first of them.
    assert process_time() - began < 5.0


@given(st.lists(st.text(max_size=60)), st.text(max_size=80))
def test_any_header_and_date_is_read_or_ignored(lines: list[str], date: str) -> None:
    cookies = kept(*lines, f"a=1; Expires={date}")

    header(cookies, URL, THEN).encode()
    assert len(cookies) <= KEPT


def now() -> datetime:
    return NOW


def jar_with(*lines: str) -> CookieJar:
    jar = CookieJar()
    jar.answered(200, lines, URL, now)
    return jar


def test_a_jar_of_cookies_of_the_session_asks_for_no_time() -> None:
    def stopped() -> datetime:
        raise AssertionError

    assert jar_with("a=1").header(URL, stopped) == "a=1"


def test_a_jar_honours_the_clock() -> None:
    jar = jar_with("a=1; Max-Age=60")

    assert (jar.header(URL, now), jar.header(URL, lambda: NOW + timedelta(seconds=60))) == ("a=1", "")
    assert CookieJar().header(URL, now) == ""


@pytest.mark.parametrize("status", [302, 400, 401, 403, 431, 440])
def test_a_refusal_makes_cookies_suspect_at_once(status: int) -> None:
    jar = jar_with("a=1", "b=2")
    jar.answered(status, ("b=3",), URL, now)

    assert jar.header(URL, now) == "b=3"


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_few_failures_in_a_row_make_cookies_suspect(status: int | None) -> None:
    jar = jar_with("a=1")

    def fail() -> None:
        if status is None:
            jar.unanswered()
        else:
            jar.answered(status, (), URL, now)

    for _ in range(FAILURES - 1):
        fail()
    assert jar.header(URL, now) == "a=1"
    jar.answered(449, (), URL, now)
    fail()
    assert jar.header(URL, now) == ""


def test_a_success_in_between_clears_the_suspicion() -> None:
    jar = jar_with("a=1")
    for _ in range(FAILURES):
        jar.answered(500, (), URL, now)
        jar.worked()

    assert jar.header(URL, now) == "a=1"


def test_failures_without_cookies_say_nothing_about_later_ones() -> None:
    jar = CookieJar()
    for _ in range(FAILURES):
        jar.answered(500, (), URL, now)
    jar.answered(500, ("a=1",), URL, now)

    assert jar.header(URL, now) == "a=1"
