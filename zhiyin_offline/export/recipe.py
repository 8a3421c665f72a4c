"""Names the way graphs are made, without the libraries that make them."""

from __future__ import annotations

# Part of the export key: raise it when graph.py changes what it writes, so that directories are written anew.
RECIPE_VERSION = 1
