"""What somebody is up to, in a deployment's own words, and what it does to a list."""
