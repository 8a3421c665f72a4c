"""The demonstration: `zhiyin demo`."""
