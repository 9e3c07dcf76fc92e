import pytest

from eas_watcher.runtime.account import host_of


@pytest.mark.parametrize(
    ("url", "host"), [("https://mail.example.com/eas", "mail.example.com"), ("https://[::1]:444/eas", "::1"), ("", "")]
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host
