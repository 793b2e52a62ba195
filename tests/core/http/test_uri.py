from __future__ import annotations

import ipaddress
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http.uri import HOST, percent_decoded
from tests.support.hostile import HOSTS, NO_HOST

# Which octets and which hosts there are stands in the tables of test_grammar.py.


def test_a_host_is_matched_as_a_whole() -> None:
    for host in HOSTS:
        assert HOST.fullmatch(host) is not None
        assert HOST.fullmatch(host + b"\n") is None
    for host in NO_HOST:
        assert HOST.fullmatch(host) is None


@given(
    st.lists(
        st.sampled_from(["::", ":", "1", "ff", "0", "12345", "1.2.3.4", "255", ".", "256.1.1.1", "g"]), max_size=16
    )
)
def test_addresses_in_brackets_are_those_of_the_standard_library(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        valid = False
    else:
        valid = True
    assert (HOST.fullmatch(b"[" + text.encode() + b"]") is not None) is valid


@given(st.one_of(st.binary(max_size=60), st.text("%0aF+ g", max_size=30).map(str.encode)))
def test_percent_decoding_is_the_librarys(octets: bytes) -> None:
    assert percent_decoded(octets) == unquote_to_bytes(octets)


@pytest.mark.parametrize(
    ("octets", "decoded"),
    [
        (b"", b""),
        (b"/a%20b%2Fc", b"/a b/c"),
        (b"%c3%A4", b"\xc3\xa4"),
        (b"%", b"%"),
        (b"%%41", b"%A"),
        (b"%4", b"%4"),
        (b"%4g%g4%+1% 1%1 ", b"%4g%g4%+1% 1%1 "),
        (b"%2541", b"%41"),
        (b"%\xb2\xb3", b"%\xb2\xb3"),
        (b"%  %\t\t% 4", b"%  %\t\t% 4"),
    ],
)
def test_percent_decoding(octets: bytes, decoded: bytes) -> None:
    assert percent_decoded(octets) == decoded
