"""Watches mailboxes on any Exchange ActiveSync server and reports new items."""
