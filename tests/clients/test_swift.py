"""The Swift client is parsed: it has no syntax errors. Whether it compiles, only a machine with Swift can tell."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_swift

PACKAGE = Path(__file__).parents[2] / "clients/swift"
SOURCES = sorted(PACKAGE.rglob("*.swift"))


def faults(text: bytes) -> list[str]:
    """Return where a text is no Swift."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))

    def broken(node: tree_sitter.Node) -> Iterator[str]:
        if node.type == "ERROR" or node.is_missing:
            yield f"line {node.start_point.row + 1}: {(node.text or b'')[:60]!r}"
        elif node.has_error:
            for child in node.children:
                yield from broken(child)

    return list(broken(parser.parse(text).root_node))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_is_swift(source: Path) -> None:
    assert faults(source.read_bytes()) == []


def test_a_syntax_error_is_found() -> None:
    assert faults(b"struct A {\n    let a: Int = \n    func b( {\n}\n") != []


def test_the_secret_stays_on_this_device() -> None:
    keychain = (PACKAGE / "Sources/PushRelay/Keychain.swift").read_text(encoding="utf-8")

    assert "kSecAttrAccessible: kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly" in keychain
    assert "kSecAttrSynchronizable: false" in keychain
    assert keychain.count("kSecAttrAccessible:") == 1


def test_no_source_names_an_environment_for_all_builds() -> None:
    wish = (PACKAGE / "Sources/PushRelay/Wish.swift").read_text(encoding="utf-8")

    assert "environment: ApnsEnvironment = .ofThisBuild()" in wish


def test_a_banner_is_shown_while_the_app_is_in_front() -> None:
    delegate = (PACKAGE / "Sources/PushRelayExample/AppDelegate.swift").read_text(encoding="utf-8")

    assert "UNUserNotificationCenter.current().delegate = self" in delegate
    assert "willPresent notification: UNNotification" in delegate
    assert "show([.banner, .list, .sound])" in delegate
