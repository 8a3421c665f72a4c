"""Users and their events: the truth that ranking owns, written by one thread."""
