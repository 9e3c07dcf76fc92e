"""The public names of the settings."""

from relay.settings.loading import load, sealing_key_files, vapid_key_file
from relay.settings.values import Settings

__all__ = ["Settings", "load", "sealing_key_files", "vapid_key_file"]
