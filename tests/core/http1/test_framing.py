from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http.fields import CONTENT_LENGTH_DIGITS
from bridge.core.http1.framing import request_content_length
from bridge.errors import FramingError, LimitExceeded, RemoteProtocolError
from tests.support.hostile import MALFORMED_CODINGS, NO_LENGTH, WIDER_THAN_DIGITS
from tests.support.table import table


@table("value", [*NO_LENGTH, *WIDER_THAN_DIGITS])
def test_what_is_no_length(value: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        request_content_length(b"1.1", [], [value])
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("value", "length"),
    [
        *((b"0", 0), (b"5", 5), (b"1234567890", 1234567890), (b"4294967296", 1 << 32), (b"4294967301", (1 << 32) + 5)),
        *((b"0005", 5), (b"00", 0), (b"0" * 17 + b"5", 5), (b"9" * 18, 10**18 - 1)),
    ],
)
def test_lengths(value: bytes, length: int) -> None:
    assert request_content_length(b"1.1", [], [value]) == length
    assert request_content_length(b"1.0", [], [value]) == length


@pytest.mark.parametrize(
    "value",
    [
        b"9" * 19,
        b"0" * 18 + b"5",
        b"9223372036854775808",
        b"18446744073709551616",
        b"18446744073709551621",
        b"9" * 5000,
    ],
)
def test_a_length_with_too_many_digits_is_not_converted(value: bytes) -> None:
    assert len(value) > CONTENT_LENGTH_DIGITS
    with pytest.raises(LimitExceeded) as caught:
        request_content_length(b"1.1", [], [value])
    assert caught.value.status == 413
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "values",
    [[b"5", b"6"], [b"5", b"5"], [b"0", b"46"], [b"5", b""], [b"", b"5"], [b"5", b"x"], [b"5"] * 3, [b"5", b"05"]],
)
def test_more_than_one_length(values: list[bytes]) -> None:
    with pytest.raises(FramingError):
        request_content_length(b"1.1", [], values)


def test_no_field_means_no_content() -> None:
    assert request_content_length(b"1.1", [], []) == 0
    assert request_content_length(b"1.0", [], []) == 0


@pytest.mark.parametrize("codings", [[b"chunked"], [b"Chunked"], [b"CHUNKED"], [b"\tchunked "]])
def test_chunked(codings: list[bytes]) -> None:
    assert request_content_length(b"1.1", codings, []) is None


@table("codings", MALFORMED_CODINGS)
def test_malformed_transfer_codings(codings: list[bytes]) -> None:
    with pytest.raises(FramingError) as caught:
        request_content_length(b"1.1", codings, [])
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "codings",
    [
        *([b"gzip, chunked"], [b"gzip", b"chunked"], [b"identity, chunked"], [b"identity", b"chunked"]),
        *([b"x", b"chunked"], [b"deflate,gzip,chunked"], [b"GZIP , Chunked"], [b"x-y!,chunked,"]),
    ],
)
def test_codings_that_are_not_implemented(codings: list[bytes]) -> None:
    with pytest.raises(FramingError) as caught:
        request_content_length(b"1.1", codings, [])
    assert caught.value.status == 400


CODINGS = [[b"chunked"], [b"identity"], [b""], [b"gzip, chunked"], [b"xchunked"], [b"\x0bchunked"]]


@pytest.mark.parametrize("codings", CODINGS)
@pytest.mark.parametrize("lengths", [[b"5"], [b"0"], [b"51"], [b"x"], [b""], [b"5", b"6"]])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_coding_beside_a_length(version: bytes, codings: list[bytes], lengths: list[bytes]) -> None:
    with pytest.raises(FramingError) as caught:
        request_content_length(version, codings, lengths)
    assert caught.value.status == 400


@pytest.mark.parametrize("codings", CODINGS)
def test_a_coding_in_http_1_0(codings: list[bytes]) -> None:
    with pytest.raises(FramingError):
        request_content_length(b"1.0", codings, [])


def test_messages_quote_little_of_the_peers_bytes() -> None:
    for codings, lengths in (([b"\xff" * 9000], []), ([], [b"\x00" * 9000]), ([], [b"a" * 9000] * 9)):
        with pytest.raises(RemoteProtocolError) as caught:
            request_content_length(b"1.1", codings, lengths)
        text = str(caught.value)
        assert len(text) < 250
        assert text.isprintable()


VALUES = st.lists(st.one_of(st.binary(max_size=8), st.sampled_from([b"chunked", b"5", b"gzip", b"0"])), max_size=3)


@given(version=st.sampled_from([b"1.0", b"1.1"]), codings=VALUES, lengths=VALUES)
def test_every_input_has_one_of_three_answers(version: bytes, codings: list[bytes], lengths: list[bytes]) -> None:
    try:
        length = request_content_length(version, codings, lengths)
    except RemoteProtocolError:
        return
    if length is None:
        assert version == b"1.1"
        assert not lengths
        members = [m for value in codings for m in value.replace(b"\t", b" ").split(b",") if m.strip(b" ")]
        assert [m.strip(b" ").lower() for m in members] == [b"chunked"]
    else:
        assert not codings
        assert len(lengths) <= 1
        assert not lengths or (lengths[0].isdigit() and length == int(lengths[0]))


@pytest.mark.parametrize("lengths", [[b"5", b"5"], [b"5", b"6"], [b"5,5"], [b"5, 6"], [b"5,"], [b","]])
def test_several_lengths_are_named_as_such(lengths: list[bytes]) -> None:
    with pytest.raises(FramingError, match="Multiple unequal Content-Lengths, or one repeated"):
        request_content_length(b"1.1", [], lengths)
