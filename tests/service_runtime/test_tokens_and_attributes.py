"""Tokens cannot be forged, damaged or swapped; attributes keep their types."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_runtime import attributes
from service_runtime.errors import InvalidRequest
from service_runtime.signed_token import TokenSigner, load_or_create_key
from service_runtime.validation import Violations
from zhiyin.common.v1.item_pb2 import Item

SIGNER = TokenSigner(b"k" * 32)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=5))
def test_a_token_gives_back_what_was_signed(payload: dict[str, object]) -> None:
    assert SIGNER.verify("page", SIGNER.sign("page", payload), "page_token") == payload


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=25))
def test_a_changed_token_is_refused(position: int, change: int) -> None:
    token = SIGNER.sign("page", {"after": "item-7"})
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    i = position % (len(token) - 1)  # the last character has bits that mean nothing
    old = token[i]
    new = alphabet[(alphabet.find(old) + change) % 26] if old in alphabet else "A"
    changed = token[:i] + new + token[i + 1 :]
    if changed != token:
        with pytest.raises(InvalidRequest) as refused:
            SIGNER.verify("page", changed, "page_token")
        assert refused.value.violations[0].field == "page_token"


@pytest.mark.parametrize("token", ["", "x", "ä", "A" * 100_000, "####"])
def test_rubbish_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest):
        SIGNER.verify("page", token, "page_token")


def test_tokens_of_another_kind_or_key_are_refused() -> None:
    token = SIGNER.sign("page", {"after": 1})
    with pytest.raises(InvalidRequest):
        SIGNER.verify("attribution", token, "attribution_token")
    with pytest.raises(InvalidRequest):
        TokenSigner(b"other key of 32 bytes, and more").verify("page", token, "page_token")


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "token.key"
    key = load_or_create_key(path)
    assert key == load_or_create_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o077 == 0


VALUES = st.one_of(
    st.text(max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.text(max_size=5), max_size=5, unique=True).map(tuple),
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)),
)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), VALUES, max_size=5))
def test_attributes_survive_the_wire_and_the_store(values: dict[str, attributes.AttributeScalar]) -> None:
    item = Item()
    attributes.to_proto(values, item.attributes)
    received = attributes.from_proto(Item.FromString(item.SerializeToString()).attributes)
    assert received == values
    assert attributes.from_json(attributes.to_json(received)) == values


def test_every_fault_of_attributes_is_found() -> None:
    item = Item()
    item.attributes["Bad Name"].string_value = "x"
    item.attributes["empty"].SetInParent()
    item.attributes["nan"].number_value = float("nan")
    item.attributes["long"].string_value = "x" * 2000
    violations = Violations()
    attributes.check(violations, "items[0].attributes", item.attributes)
    assert {v.field for v in violations.found} == {
        f"items[0].attributes[{name}]" for name in ("Bad Name", "empty", "nan", "long")
    }
