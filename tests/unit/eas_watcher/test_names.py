from eas_watcher.names import DEVICE_TYPE, USER_AGENT, CollectionClass, ProtocolVersion


def test_classes_are_spelt_as_the_protocol_does() -> None:
    assert [cls.wire for cls in CollectionClass] == ["Email", "Calendar", "Contacts", "Tasks", "Notes"]


def test_versions_are_spelt_as_the_header_does_and_in_order() -> None:
    assert [version.wire for version in sorted(ProtocolVersion)] == ["12.1", "14.0", "14.1", "16.0", "16.1"]


def test_the_device_names_itself_with_letters_only() -> None:
    assert DEVICE_TYPE.isalpha()
    assert USER_AGENT == "PushRelay/1"
