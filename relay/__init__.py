"""Relay new-item notices from mailboxes inside the company to phones, without content."""
