"""The public names of the settings."""

from relay.settings.loading import database_named, database_of, key_making, load, ops_addresses, vapid_key_file
from relay.settings.values import Settings

__all__ = ["Settings", "database_named", "database_of", "key_making", "load", "ops_addresses", "vapid_key_file"]
