"""Checks of the keys of [api] that say who may register: the ways to enrol, their keys, and the CA of their devices."""

import re
from collections.abc import Iterator
from typing import Final

from relay.registration.enrolment import OPEN, Enrolment, EnrolmentMode
from relay.settings.contents import text_misfit
from relay.settings.files import Files
from relay.settings.sections import ApiSection

KEYS: Final = "api.enrolment_key_files"
CA: Final = "api.client_ca_file"
KEY: Final = re.compile(r"[!-~]{22,512}", re.ASCII)
"""128 bits are 22 characters of base64."""
MAKE: Final = "Write one key a line, each of 22 to 512 letters and digits: `openssl rand -base64 32` makes one."


def read_enrolment(section: ApiSection, files: Files) -> Enrolment:
    """Return who may register; faults go to `files.faults`."""
    alternatives = _alternatives(section, files)
    modes = frozenset[EnrolmentMode]().union(*alternatives)
    if EnrolmentMode.KEY in modes:
        files.faults.require(KEYS, section.enrolment_key_files, "Name a file with one key a line.")
    elif section.enrolment_key_files:
        files.faults.add(KEYS, "is set, but api.enrolment does not list key", 'Add "key" to it, or remove the files.')
    if EnrolmentMode.MTLS in modes:
        files.faults.require(
            CA, section.client_ca_file, "Name the PEM file of the CA that issues devices' certificates."
        )
        if section.certificate_file is None:
            wrong = "lists mtls, but the relay does not end TLS itself"
            remedy = "Set api.certificate_file and api.key_file: no reverse proxy may stand in between."
            files.faults.add("api.enrolment", wrong, remedy)
    elif section.client_ca_file is not None:
        files.faults.add(CA, "is set, but api.enrolment does not list mtls", 'Add "mtls" to it, or remove the file.')
    return Enrolment(alternatives, [key for name in section.enrolment_key_files for key in _keys(name, files)])


def _alternatives(section: ApiSection, files: Files) -> tuple[frozenset[EnrolmentMode], ...]:
    known = {mode.value for mode in EnrolmentMode}
    found: dict[frozenset[EnrolmentMode], None] = {}
    for text in section.enrolment:
        words = [word.strip() for word in text.split("+")]
        if not known.issuperset(words):
            remedy = 'List "open", "key", "mtls", or what is demanded together: "key+mtls".'
            files.faults.add("api.enrolment", "holds what is no way to enrol", remedy)
            return OPEN
        found[frozenset(map(EnrolmentMode, words))] = None
    if any(EnrolmentMode.OPEN in each for each in found) and tuple(found) != OPEN:
        remedy = 'Remove "open": while it is there, nobody needs to show anything.'
        files.faults.add("api.enrolment", "lists open beside other ways", remedy)
    return tuple(found)


def _keys(name: str, files: Files) -> Iterator[str]:
    path = files.path(name)
    content = files.read(KEYS, path, secret=True, remedy=MAKE)
    if content is None:
        return
    if (misfit := text_misfit(content)) is not None:
        files.faults.add(KEYS, f"{path} {misfit[0]}", misfit[1])
        return
    lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        files.faults.add(KEYS, f"{path} holds no key", MAKE)
    if not all(map(KEY.fullmatch, keys)):
        files.faults.add(KEYS, f"{path} holds a key that is too short, too long or has blanks", MAKE)
    yield from keys
