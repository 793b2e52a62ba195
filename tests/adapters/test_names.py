"""Distinguished names as RFC 4514 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.names import distinguished_name


def escaped(value: str) -> str:
    return distinguished_name(((("commonName", value),),)).removeprefix("CN=")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("", "", id="empty"),
        pytest.param("a,b+c", "a\\,b\\+c", id="separators"),
        pytest.param('"<>;\\', '\\"\\<\\>\\;\\\\', id="other special characters"),
        pytest.param(" lead", "\\ lead", id="a space at the beginning"),
        pytest.param("  lead", "\\  lead", id="only the first of two spaces at the beginning"),
        pytest.param("#hash", "\\#hash", id="a number sign at the beginning"),
        pytest.param("a#b", "a#b", id="a number sign inside"),
        pytest.param("trail ", "trail\\ ", id="a space at the end"),
        pytest.param("trail  ", "trail \\ ", id="only the last of two spaces at the end"),
        pytest.param("\\ ", "\\\\\\ ", id="a backslash and a space"),
        pytest.param(" ", "\\ ", id="one space is escaped once"),
        pytest.param("  ", "\\ \\ ", id="two spaces"),
        pytest.param("#", "\\#", id="only a number sign"),
        pytest.param("a b", "a b", id="a space inside"),
        pytest.param("a \n", "a \n", id="a line feed behind a space"),
        pytest.param("nul\0", "nul\\00", id="NUL"),
        pytest.param("=é=", "=é=", id="an equals sign, anywhere, needs no escape"),
    ],
)
def test_values(value: str, text: str) -> None:
    assert escaped(value) == text


def test_the_last_group_comes_first_and_groups_keep_their_pairs() -> None:
    subject = (
        (("countryName", "DE"),),
        (("organizationName", "O"), ("unknownType", "x")),
        (("emailAddress", "a@b.example"),),
        (("commonName", "name"),),
    )
    assert distinguished_name(subject) == "CN=name,emailAddress=a@b.example,O=O+unknownType=x,C=DE"


def test_no_name() -> None:
    assert distinguished_name(()) == ""


def unescaped(text: str) -> str:
    """Read a value back (RFC 4514 section 3: pair), and see that it holds nothing that would have ended it."""
    value = ""
    while text:
        if text.startswith("\\00"):
            value, text = value + "\0", text[3:]
        elif text.startswith("\\"):
            value, text = value + text[1], text[2:]
        else:
            assert text[0] not in '"+,;<>\0'
            value, text = value + text[0], text[1:]
    return value


@given(st.text(alphabet=' #"+,;<>\\=\0a'))
def test_values_come_back(value: str) -> None:
    text = escaped(value)
    assert unescaped(text) == value
    assert text[:1] not in {" ", "#"}
    assert not text.endswith(" ") or text[-2:] == "\\ "
