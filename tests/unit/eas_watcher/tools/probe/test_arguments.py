"""What the probe's command line takes, and where the password comes from."""

from pathlib import Path

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.tools.probe.arguments import FAULTY, PASSWORD, ArgumentsFaulty, Order, main, read_order

NEEDED = ("probe", "--url", "mail.example.com", "--user", "ann@example.com")


def never(_: str) -> str:
    raise AssertionError("no password is to be asked for")


def order(*more: str, password: str = "secret") -> Order:  # noqa: S107 -- a test's
    return read_order([*NEEDED, *more], {PASSWORD: password}, never)


def password(read: Order) -> str:
    assert isinstance(read.credential, BasicCredential)
    return read.credential.password


def test_a_host_is_completed_to_an_activesync_url() -> None:
    read = order()

    assert read.url == "https://mail.example.com/Microsoft-Server-ActiveSync"
    assert (read.host, read.port) == ("mail.example.com", 443)
    assert read.acknowledgement is Acknowledgement.THIRD_PARTY


def test_a_whole_url_is_taken_as_it_is() -> None:
    read = order("--url", "https://mail.example.com:8443/eas/", "--acknowledge", "1")

    assert read.url == "https://mail.example.com:8443/eas"
    assert read.port == 8443
    assert read.acknowledgement is Acknowledgement.APPLIED


@pytest.mark.parametrize(
    "url",
    ["http://mail.example.com", "https://ann:secret@mail.example.com", "https://", "https://mail.example.com/?a=b",
     "https://mail.example.com:99999", "https://[", "ftp://mail.example.com"],
)  # fmt: skip
def test_a_url_that_no_password_may_go_to_is_refused(url: str) -> None:
    with pytest.raises(ArgumentsFaulty, match="--url"):
        order("--url", url)


def test_the_password_comes_from_a_file_before_the_environment_before_a_question(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\n", encoding="utf-8")

    assert password(order("--password-file", str(file))) == "from the file"
    assert password(order()) == "secret"
    assert password(read_order(NEEDED, {}, lambda prompt: f"asked: {prompt}")).startswith("asked: ")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfpass word \r\n", b"pass word \nmore"])
def test_the_password_is_the_first_line_as_it_is_typed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)

    assert password(order("--password-file", str(tmp_path / "password"))) == "pass word "


def test_an_empty_password_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\n")

    with pytest.raises(ArgumentsFaulty, match="first line is empty"):
        order("--password-file", str(tmp_path / "password"))


def test_with_a_ticket_no_password_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gssapi.py").touch()  # the optional library, or something of its name
    monkeypatch.syspath_prepend(tmp_path)

    read = read_order([*NEEDED, "--kerberos", "--target", "HTTP/mail.example.com@EXAMPLE.COM"], {}, never)

    assert read.credential == KerberosCredential("ann@example.com", "")
    assert read.target == "HTTP/mail.example.com@EXAMPLE.COM"
    with pytest.raises(ArgumentsFaulty, match="takes no password"):
        order("--kerberos", "--password-file", "password")


def test_there_is_no_argument_for_the_password() -> None:
    with pytest.raises(ArgumentsFaulty):
        order("--password", "secret")


@pytest.mark.parametrize(
    "more",
    [
        ("--password-file", "/nowhere/password"),
        ("--ca-file", "/nowhere/ca.pem"),
        ("--ca-file", __file__),
        ("--acknowledge", "3000"),
        ("--patience", "0"),
        ("--patience", "nan"),
        ("--user", "ann:example"),
        ("--user", ""),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_reported(more: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentsFaulty):
        order(*more)


def test_faulty_arguments_end_with_status_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe"], {}, never) == FAULTY
    assert main(NEEDED, {}, lambda _: (_ for _ in ()).throw(EOFError)) == FAULTY

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_password_is_not_shown_with_an_order() -> None:
    assert "hunter2" not in repr(order(password="hunter2"))


def test_a_proxy_may_be_on_the_way(tmp_path: Path) -> None:
    file = tmp_path / "proxy.password"
    file.write_text("hunter2\n")

    read = order("--proxy", "socks5h://p.example.com:1080", "--proxy-user", "relay", "--proxy-password-file", str(file))

    assert read.proxy == Proxy("p.example.com", 1080, "--proxy", "relay", "hunter2", speaks="socks5h")
    assert order().proxy is None


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (("--proxy", "ftp://p:1"), "--proxy begins with none of http://"),
        (("--proxy", "http://relay:hunter2@p:1"), "--proxy holds a user"),
        (("--proxy-user", "relay"), "belong to --proxy"),
        (("--proxy", "http://p:1", "--proxy-user", "relay"), "give both, or neither"),
        (("--proxy", "https://p:1", "--proxy-ca-file", "missing.pem"), "missing.pem: No such file"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_fault_that_shows_no_password(more: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(ArgumentsFaulty, match=wrong) as caught:
        order(*more)
    assert "hunter2" not in str(caught.value)
