"""The managed configurations that are shipped have the keys that docs/appconfig.md explains."""

import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).parents[2]
ANDROID: Final = "{http://schemas.android.com/apk/res/android}"


def explained() -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/appconfig.md").read_text(), re.MULTILINE)


def parsed(name: str) -> ET.Element:
    return ET.parse(ROOT / "docs/appconfig" / name).getroot()  # noqa: S314 -- our own file


def test_android_gets_every_key_with_title_and_type() -> None:
    found = parsed("android-restrictions.xml").findall("restriction")

    assert [each.get(f"{ANDROID}key") for each in found] == explained()
    assert {each.get(f"{ANDROID}restrictionType") for each in found} == {"string", "choice"}
    assert all(each.get(f"{ANDROID}title") and each.get(f"{ANDROID}description") for each in found)


def test_ios_gets_every_key_with_a_field_to_fill_in() -> None:
    root = parsed("ios-specfile.xml")

    assert [each.get("keyName") for each in root.findall("dict/*")] == explained()
    assert [each.get("keyName") for each in root.findall("presentation/field")] == explained()
    assert all(each.findtext("label/language") for each in root.findall("presentation/field"))


def test_the_modes_are_those_of_the_api() -> None:
    from relay.domain.model import Mode  # noqa: PLC0415 -- only this test needs it

    values = parsed("ios-specfile.xml").findall("dict/string[@keyName='mode']/constraints/values/value")

    assert [each.text for each in values] == [mode.value for mode in Mode]
    arrays = {each.get("name"): [item.text for item in each] for each in parsed("android-values.xml")}
    assert arrays["relay_mode_values"] == [mode.value for mode in Mode]
    (mode,) = [each for each in parsed("android-restrictions.xml") if each.get(f"{ANDROID}key") == "mode"]
    named = {mode.get(f"{ANDROID}entries"), mode.get(f"{ANDROID}entryValues")}
    assert named == {f"@array/{name}" for name in arrays}
