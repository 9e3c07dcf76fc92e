"""The public names of the settings."""

from relay.settings.loading import key_making, load, vapid_key_file
from relay.settings.values import Settings

__all__ = ["Settings", "key_making", "load", "vapid_key_file"]
