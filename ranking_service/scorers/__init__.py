"""How relevant each candidate is."""
