"""Watch mailboxes on any Exchange ActiveSync server and tell when something new arrives."""
