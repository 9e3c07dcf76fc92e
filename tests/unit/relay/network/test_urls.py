import pytest

from relay.network.urls import is_loopback, secure_url


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://fcm.example.com", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://fcm.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("ftp://127.0.0.1", False),
        ("fcm", False),
        ("https://", False),
        ("https://[::1", False),
        ("https://fcm.example.com:0", False),
    ],
)
def test_only_loopback_needs_no_encryption(url: str, secure: bool) -> None:
    assert secure_url(url) is secure


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)]
)
def test_loopback_is_recognised_by_address_and_name(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
