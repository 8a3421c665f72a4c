"""What can be wrong with an import file.

ImportFailed     the import as a whole cannot go on
BadRow           one row cannot be used; it is written to the rejects file and the import goes on
"""

from __future__ import annotations


class ImportFailed(Exception):  # noqa: N818 - named for what happened
    """The import stopped; the message says why and what to do."""


class BadRow(Exception):  # noqa: N818 - named for what it is
    """One row cannot be used; the message names the field."""
