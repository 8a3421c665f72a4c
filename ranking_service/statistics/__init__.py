"""What all users together did: exact folds of the event log, rebuilt from it at any time."""
