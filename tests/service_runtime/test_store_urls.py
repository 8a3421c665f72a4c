"""Database URLs of the settings: what is wrong is said without what may be a password."""

from __future__ import annotations

import pytest

from service_runtime.sql import check_url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://zhiyin:p@rt:secret@db/items",  # an @ that was not written as %40
        "postgresql://zhiyin:secret/items",
        "postgresql+psycopg://zhiyin:secret@db:secret/items",
        "secret",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="is no database URL") as fault:
        check_url(url)
    assert "secret" not in str(fault.value)
    assert fault.value.__suppress_context__
