"""Own the public names of the settings."""

from relay.settings.loading import load, sealing_key_files, vapid_key_file
from relay.settings.values import Role, Settings

__all__ = ["Role", "Settings", "load", "sealing_key_files", "vapid_key_file"]
