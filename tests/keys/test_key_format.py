"""The form of generated keys: what the checksum finds, and what it leaves alone."""

import re
import secrets
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.keys import key_format
from app.keys.key_format import ALPHABET, checksum_fits, make_id, make_key

IDS = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=32)


@given(IDS)
def test_a_new_key_fits_its_checksum_and_its_form(key_id: str) -> None:
    key = make_key(key_id)
    assert checksum_fits(key.encode()) is True
    found = re.fullmatch(r"tbg_([A-Za-z0-9-]+)_([A-Za-z0-9]+)([A-Za-z0-9]{6})", key)
    assert found
    assert found[1] == key_id
    assert len(ALPHABET) ** len(found[2]) >= 2**128


@given(IDS, st.data())
def test_any_one_wrong_character_is_found(key_id: str, data: st.DataObject) -> None:
    key = make_key(key_id)
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.characters(codec="ascii").filter(lambda character: character != key[place]))
    assert checksum_fits((key[:place] + wrong + key[place + 1 :]).encode()) is not True


@given(IDS, st.data())
def test_any_two_swapped_characters_are_found(key_id: str, data: st.DataObject) -> None:
    key = list(make_key(key_id))
    places = st.integers(0, len(key) - 1)
    one = data.draw(places)
    other = data.draw(places.filter(lambda place: key[place] != key[one]))
    key[one], key[other] = key[other], key[one]
    assert checksum_fits("".join(key).encode()) is not True


@given(IDS, st.data())
def test_a_missing_or_doubled_character_is_found(key_id: str, data: st.DataObject) -> None:
    key = make_key(key_id)
    place = data.draw(st.integers(0, len(key) - 1))
    assert checksum_fits((key[:place] + key[place + 1 :]).encode()) is not True
    assert checksum_fits((key[:place] + key[place] + key[place:]).encode()) is not True


def test_every_typing_error_of_the_kinds_people_make_is_mistyped_not_unknown() -> None:
    """All wrong letters and digits in secret and checksum, and all swapped neighbours."""
    key = make_key("abcd1234").encode()
    start = key.rindex(b"_") + 1
    for place in range(start, len(key)):
        for other in ALPHABET.encode():
            if other != key[place]:
                assert checksum_fits(key[:place] + bytes([other]) + key[place + 1 :]) is False
        if place + 1 < len(key) and key[place] != key[place + 1]:
            swapped = key[:place] + key[place : place + 2][::-1] + key[place + 2 :]
            assert checksum_fits(swapped) is False


@given(st.binary(max_size=64))
def test_anything_may_be_presented(presented: bytes) -> None:
    assert checksum_fits(presented) in {True, False, None}


@given(st.integers(1, 48), st.sampled_from(["", "prod_", "a-", "_"]))
def test_keys_of_free_form_are_never_taken_for_mistyped_ones(size: int, infix: str) -> None:
    """The documentation used to make keys of `tbg_` and `token_urlsafe(32)`."""
    assert checksum_fits(f"tbg_{secrets.token_urlsafe(size)}".encode()) is None
    assert checksum_fits(f"tbg_{secrets.token_hex(size)}".encode()) is None
    assert checksum_fits(f"{infix}{secrets.token_urlsafe(size)}".encode()) is None


def test_even_one_that_looks_just_like_a_generated_one_but_for_its_length() -> None:
    assert checksum_fits(b"tbg_" + b"a" * 9 + b"_" + b"b" * 33) is None
    assert checksum_fits(b"tbg_" + b"a" * 14 + b"_" + b"b" * 28) is None


@pytest.mark.parametrize("crc", [0, 2**32 - 1])
def test_the_checksum_has_one_length(crc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_format.zlib, "crc32", lambda _: crc)
    assert len(key_format.checksum_of(b"")) == 6


def test_ids_are_short_and_without_separators() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9]{8}", make_id()) for _ in range(100))
    assert len({make_id() for _ in range(100)}) == 100
