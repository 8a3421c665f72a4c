"""Which candidates get which place."""
