from collections.abc import Callable
from typing import Any

import pytest

from relay.settings.spellings import (
    app_name,
    apple_id,
    bare_host,
    bundle_id,
    listening_host,
    login_domain,
    mail_address,
    mail_domain,
    package_name,
    printable,
    some_hosts,
    split,
    split_numbers,
    words,
)


@pytest.mark.parametrize(
    ("read", "given", "taken"),
    [
        (split, "a, b,,", ["a", "b"]),
        (split, ["a, b"], ["a, b"]),
        (split_numbers, "1, 2, x", [1, 2, "x"]),
        (split_numbers, [1], [1]),
        (words, [14.1, "16.1", 5], ["14.1", "16.1", 5]),
        (words, "14.1, 16.1", ["14.1", "16.1"]),
        (words, 5, 5),
        (bare_host, "[::1]", "::1"),
        (bare_host, "relay.example.com", "relay.example.com"),
        (listening_host, "*", "*"),
        (listening_host, "[::]", "::"),
        (some_hosts, ("::1", "127.0.0.1", "::1"), ("::1", "127.0.0.1")),
        (mail_domain, "@Example.COM.", "example.com"),
        (login_domain, "@example.com", "example.com"),
        (login_domain, "EXAMPLE\\", "EXAMPLE"),
        (app_name, "any name".replace(" ", "-"), "any-name"),
        (mail_address, "o'hara+push@example.com", "o'hara+push@example.com"),
        (apple_id, "abcde12345", "ABCDE12345"),
        (bundle_id, "com.example.my-mail", "com.example.my-mail"),
        (package_name, "com.example.my_mail", "com.example.my_mail"),
        (printable, "Schlüssel", "Schlüssel"),
    ],
)
def test_what_is_meant_without_doubt_is_taken(read: Callable[[Any], Any], given: Any, taken: Any) -> None:
    assert read(given) == taken


@pytest.mark.parametrize(
    ("read", "given", "wrong"),
    [
        (bare_host, "https://relay.example.com", "is a URL"),
        (bare_host, "relay.example.com:8443", "has a port"),
        (bare_host, "relay.example.com/x", "has a path"),
        (bare_host, "my host", "is no host name"),
        (some_hosts, (), "is empty"),
        (some_hosts, ("*", "::1"), "names an address twice"),
        (mail_address, "ann", "is no plain mail address"),
        (mail_address, "ann,ben@example.com", "is no plain mail address"),
        (mail_domain, "*.example.com", "holds a wildcard"),
        (mail_domain, "ann@example.com", "holds an address"),
        (mail_domain, "https://example.com", "holds a URL"),
        (mail_domain, "EXAMPLE\\ann", "holds a Windows domain or login"),
        (mail_domain, "example com", "holds what is no domain"),
        (mail_domain, "", "holds what is no domain"),
        (login_domain, "EXAMPLE\\ann", "holds what is no domain of logins"),
        (login_domain, "ann@example.com", "holds what is no domain of logins"),
        (login_domain, "@", "holds what is no domain of logins"),
        (app_name, "two words", "a name with a blank"),
        (apple_id, "ABCDE1234", "ten letters and digits"),
        (bundle_id, "com.example.*", "holds a wildcard"),
        (bundle_id, "com_example", "no bundle id"),
        (bundle_id, "two words", "a name with a blank"),
        (package_name, "com.example.*", "holds a wildcard"),
        (package_name, "1:12:android:ab", "an app id of Firebase"),
        (package_name, "com/example", "no package name"),
        (printable, "two\nlines", "line breaks"),
    ],
)
def test_what_is_something_else_says_what_it_is(read: Callable[[Any], Any], given: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read(given)
