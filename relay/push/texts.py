"""Own the words a user may read in a push: one fixed title and body per mark and language, none of it from a mail."""

from collections.abc import Mapping
from typing import Final

from relay.model import Mark

FALLBACK: Final = "en"

TEXTS: Final[Mapping[str, Mapping[Mark, tuple[str, str]]]] = {
    "en": {
        Mark.EMAIL: ("New mail", "There is new mail in your mailbox."),
        Mark.CALENDAR: ("Calendar", "There is something new in your calendar."),
        Mark.CONTACTS: ("Contacts", "There is something new in your contacts."),
        Mark.TASKS: ("Tasks", "There is something new in your tasks."),
        Mark.NOTES: ("Notes", "There is something new in your notes."),
        Mark.ATTENTION: ("Attention needed", "New mail is no longer announced. Open the app to see why."),
        Mark.TEST: ("Test", "This is a test notification."),
    },
    "de": {
        Mark.EMAIL: ("Neue E-Mail", "In Ihrem Postfach ist neue Post."),
        Mark.CALENDAR: ("Kalender", "In Ihrem Kalender gibt es Neues."),
        Mark.CONTACTS: ("Kontakte", "In Ihren Kontakten gibt es Neues."),
        Mark.TASKS: ("Aufgaben", "In Ihren Aufgaben gibt es Neues."),
        Mark.NOTES: ("Notizen", "In Ihren Notizen gibt es Neues."),
        Mark.ATTENTION: (
            "Bitte beachten",
            "Neue E-Mails werden nicht mehr gemeldet. Öffnen Sie die App für den Grund.",
        ),
        Mark.TEST: ("Test", "Dies ist eine Testmitteilung."),
    },
    "fr": {
        Mark.EMAIL: ("Nouveau message", "Votre boîte aux lettres contient un nouveau message."),
        Mark.CALENDAR: ("Calendrier", "Il y a du nouveau dans votre calendrier."),
        Mark.CONTACTS: ("Contacts", "Il y a du nouveau dans vos contacts."),
        Mark.TASKS: ("Tâches", "Il y a du nouveau dans vos tâches."),
        Mark.NOTES: ("Notes", "Il y a du nouveau dans vos notes."),
        Mark.ATTENTION: (
            "Attention requise",
            "Les nouveaux messages ne sont plus annoncés. Ouvrez l'application pour savoir pourquoi.",
        ),
        Mark.TEST: ("Test", "Ceci est une notification de test."),
    },
}


def text(mark: Mark, locale: str) -> tuple[str, str]:
    """Choose title and body by the language of a locale ("de", "de-AT", "de_CH"); any other language reads English."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    return TEXTS.get(language, TEXTS[FALLBACK])[mark]
