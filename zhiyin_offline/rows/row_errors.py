"""What can be wrong with an import file.

ImportFailed     the import as a whole cannot go on
BadRow           one row cannot be used; it is written to the rejects file and the import goes on
"""

from __future__ import annotations


class ImportFailed(Exception):
    """The import stopped; the message says why and what to do."""


class BadRow(Exception):
    """One row cannot be used; the message names the field."""
