from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.sansio.multipart import MultipartDecoder

from bridge.core.httputil import (
    HTTPFile,
    HTTPHeaders,
    HTTPInputError,
    ParseBodyConfig,
    ParseMultipartConfig,
    ParseUrlEncodedConfig,
    parse_body_arguments,
    parse_multipart_form_data,
    set_parse_body_config,
)
from bridge.core.tornado import forms
from bridge.core.tornado.forms import Arguments, Files
from tests.support import ROOT

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"


def parsed(content_type: str, body: bytes, config: ParseBodyConfig | None = None) -> tuple[Arguments, Files]:
    arguments: Arguments = {}
    files: Files = {}
    parse_body_arguments(content_type, body, arguments, files, config=config)
    return arguments, files


def refused(content_type: str, body: bytes, config: ParseBodyConfig | None = None) -> str:
    arguments: Arguments = {"kept": [b""]}
    files: Files = {"kept": []}
    with pytest.raises(HTTPInputError) as caught:
        parse_body_arguments(content_type, body, arguments, files, config=config)
    assert arguments == {"kept": [b""]}
    assert files == {"kept": []}
    return str(caught.value)


@pytest.fixture
def process_config() -> Iterator[ParseBodyConfig]:
    """A configuration that is the process's for one test."""
    config = ParseBodyConfig()
    before = forms._config
    set_parse_body_config(config)
    yield config
    set_parse_body_config(before)


# --- application/x-www-form-urlencoded --------------------------------------------------------------------------------

QUERIES: list[tuple[bytes, Arguments]] = [
    (b"", {}),
    (b"a=1&b=2&a=3", {"a": [b"1", b"3"], "b": [b"2"]}),
    (b"a=&b&=c", {"a": [b""], "b": [b""], "": [b"c"]}),
    (b"&&a=1&&", {"a": [b"1"]}),
    (b"a=1;b=2", {"a": [b"1;b=2"]}),
    (b"a=b=c", {"a": [b"b=c"]}),
    (b"a+b=c+d%20e%2B", {"a b": [b"c d e+"]}),
    (b"%C3%A9=%ff%00%C3%A9", {"\xc3\xa9": [b"\xff\x00\xc3\xa9"]}),
    (b"\xc3\xa9=\xff", {"\xc3\xa9": [b"\xff"]}),
    (b"a=%&b=%4&c=%zz&d=%4g", {"a": [b"%"], "b": [b"%4"], "c": [b"%zz"], "d": [b"%4g"]}),
]


@pytest.mark.parametrize(("query", "arguments"), QUERIES)
def test_arguments(query: bytes, arguments: Arguments) -> None:
    assert forms.parse_query(query) == arguments
    assert forms.parse_query(query.decode("latin-1")) == arguments
    assert parsed(URLENCODED, query) == (arguments, {})


@pytest.mark.parametrize(
    "content_type",
    [URLENCODED, URLENCODED + "; charset=utf-8", URLENCODED + ";charset=utf-8", "Application/X-WWW-Form-UrlEncoded"],
)
def test_content_types_of_a_urlencoded_form(content_type: str) -> None:
    assert parsed(content_type, b"a=1") == ({"a": [b"1"]}, {})


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json", "x" + URLENCODED, "multipart/mixed; boundary=b"]
)
def test_other_content_is_left_alone(content_type: str) -> None:
    assert parsed(content_type, b"a=1&" * 5000) == ({}, {})


def test_arguments_are_added_to_those_there_are() -> None:
    arguments = {"a": [b"0"], "b": [b"0"]}
    parse_body_arguments(URLENCODED, b"a=1&c=2", arguments, {})
    assert arguments == {"a": [b"0", b"1"], "b": [b"0"], "c": [b"2"]}


@given(st.lists(st.tuples(st.binary(), st.binary())))
def test_any_octets_come_back(pairs: list[tuple[bytes, bytes]]) -> None:
    query = "&".join(f"{quote_from_bytes(name)}={quote_from_bytes(value)}" for name, value in pairs).encode()
    expected: Arguments = {}
    for name, value in pairs:
        expected.setdefault(name.decode("latin-1"), []).append(value)
    assert forms.parse_query(query) == expected


@given(st.one_of(st.binary(), st.text("%+&=;aF0\xe9").map(lambda text: text.encode("latin-1"))))
def test_a_query_is_read_as_the_standard_library_reads_it(query: bytes) -> None:
    expected: Arguments = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1"):
        expected.setdefault(name, []).append(value.encode("latin-1"))
    assert forms.parse_query(query) == expected


@pytest.mark.parametrize("value", [b"%41" * 50, b"%" * 50, b"%4" * 50, b"%%41%4%414" * 10, b"a%zz%e9%" * 10])
@pytest.mark.parametrize("piece", range(3, 12))
def test_a_long_value_is_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch, value: bytes, piece: int) -> None:
    monkeypatch.setattr(forms, "_PIECE", piece)
    assert forms.parse_query(b"a=" + value) == {"a": [unquote_to_bytes(value)]}


@pytest.mark.parametrize("octets", [b"%", b"%4", b"%41", b"%41a", b"+"])
def test_a_percent_encoded_value_costs_little_memory(octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_LONE_MAX", 1 << 20)
    query = b"a=" + octets * (300_000 // len(octets))
    tracemalloc.start()
    try:
        forms.parse_query(query)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(query)


def test_text_outside_latin_1_is_no_query() -> None:
    with pytest.raises(HTTPInputError, match="Invalid query string"):
        forms.parse_query("a=\u0100")


def test_as_many_arguments_as_allowed() -> None:
    assert parsed(URLENCODED, b"a=1&" * 999 + b"a=1") == ({"a": [b"1"] * 1000}, {})


@pytest.mark.parametrize("body", [b"a=1&" * 1000, b"&" * 1000, b"a&" * 100000])
def test_more_arguments_than_allowed(body: bytes) -> None:
    message = refused(URLENCODED, body)
    assert message.startswith("Invalid x-www-form-urlencoded body: Max number of fields exceeded")
    assert f"{body.count(b'&') + 1}, limit 1000" in message


def test_arguments_are_counted_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(octets: bytes) -> bytes:
        raise AssertionError(octets)

    monkeypatch.setattr(forms, "_decoded", decoded)
    refused(URLENCODED, b"&" * 1000)


def test_a_limit_of_arguments_of_ones_own(process_config: ParseBodyConfig) -> None:
    config = ParseBodyConfig(urlencoded=ParseUrlEncodedConfig(max_arguments=2))
    assert parsed(URLENCODED, b"a&b", config) == ({"a": [b""], "b": [b""]}, {})
    assert "3, limit 2" in refused(URLENCODED, b"a&b&c", config)
    process_config.urlencoded.max_arguments = 1
    assert "2, limit 1" in refused(URLENCODED, b"a&b")
    with pytest.raises(HTTPInputError, match="2, limit 1"):
        forms.check_argument_count("a&b")


# --- which kind of form, and how it is labelled -----------------------------------------------------------------------


@pytest.mark.parametrize(("content_type", "body"), [(URLENCODED, b"a=1"), (MULTIPART, b"--b--")])
def test_an_encoded_form_is_refused(content_type: str, body: bytes) -> None:
    headers = HTTPHeaders({"Content-Encoding": "gzip"})
    with pytest.raises(HTTPInputError, match="Unsupported Content-Encoding: 'gzip'"):
        parse_body_arguments(content_type, body, {}, {}, headers)
    parse_body_arguments(content_type, body, {}, {}, HTTPHeaders({"Content-Type": content_type}))
    parse_body_arguments("text/plain", body, {}, {}, headers)


@pytest.mark.parametrize(
    "content_type",
    [
        *("multipart/form-data; boundary=b", 'multipart/form-data; boundary="b"', "Multipart/Form-Data;BOUNDARY=b"),
        *("multipart/form-data ; charset=utf-8 ; boundary=b ", "multipart/form-data; boundary=b; charset=utf-8"),
    ],
)
def test_ways_to_give_the_boundary(content_type: str) -> None:
    assert parsed(content_type, b"--b\r\n" + ARGUMENT + b"\r\n--b--") == ({"a": [b"1"]}, {})


@pytest.mark.parametrize(
    "content_type",
    [
        *(
            "multipart/form-data",
            "multipart/form-data; boundary",
            "multipart/form-data; boundary=",
            "multipart/form-datab; boundary=b",
        ),
        *(
            'multipart/form-data; boundary=""',
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data boundary=b",
        ),
    ],
)
def test_no_boundary_or_too_many(content_type: str) -> None:
    assert refused(content_type, b"--b--").startswith("Invalid multipart/form-data")


@pytest.mark.parametrize("boundary", ["-", "--", "---", "a:b=c?(d)'e/f", "x" * 70, ".*", "b[", "\xe9"])
def test_unusual_boundaries(boundary: str) -> None:
    line = b"--" + boundary.encode()
    body = b"\r\n".join([line, ARGUMENT, line, FILE, line + b"--", b""])
    assert parsed(f"multipart/form-data; boundary={boundary}", body) == ({"a": [b"1"]}, {"f": [UPLOAD]})


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_boundary_longer_than_any_is_refused(quote: str) -> None:
    """Patterns are made of it and kept for a while: long ones would cost milliseconds and megabytes."""
    boundary = "x" * 71
    body = b"\r\n".join([b"--" + boundary.encode(), ARGUMENT, b"--" + boundary.encode() + b"--", b""])
    error = refused(f"multipart/form-data; boundary={quote}{boundary}{quote}", body)
    assert error == "Invalid multipart/form-data: boundary of 71 bytes, limit 70"


# --- multipart/form-data ----------------------------------------------------------------------------------------------

ARGUMENT = b'Content-Disposition: form-data; name="a"\r\n\r\n1'
FILE = b'Content-Disposition: form-data; name="f"; filename="g.txt"\r\nContent-Type: text/plain\r\n\r\n2'
UPLOAD = HTTPFile(filename="g.txt", body=b"2", content_type="text/plain")


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


ACCEPTED = [
    pytest.param(form(), {}, {}, id="no parts"),
    pytest.param(form(ARGUMENT), {"a": [b"1"]}, {}, id="an argument"),
    pytest.param(form(FILE), {}, {"f": [UPLOAD]}, id="a file"),
    pytest.param(b"x" * 8000 + b"\r\n" + form(ARGUMENT), {"a": [b"1"]}, {}, id="a preamble"),
    pytest.param(form(ARGUMENT) + b"\r\n--bx" * 5000, {"a": [b"1"]}, {}, id="much behind the last delimiter"),
    pytest.param(b"--b" + b" " * 900 + b"\r\n" + ARGUMENT + b"\r\n--b--", {"a": [b"1"]}, {}, id="blanks"),
    pytest.param(form(ARGUMENT, FILE, ARGUMENT), {"a": [b"1", b"1"]}, {"f": [UPLOAD]}, id="several"),
    pytest.param(form(ARGUMENT).rstrip(), {"a": [b"1"]}, {}, id="no line end at the end"),
    pytest.param(form(ARGUMENT) + form(FILE), {"a": [b"1"]}, {}, id="an epilogue"),
    pytest.param(form(ARGUMENT).rstrip() + b"x", {"a": [b"1"]}, {}, id="an epilogue on the last line"),
    pytest.param(form(ARGUMENT).rstrip() + b" \n\t\r", {"a": [b"1"]}, {}, id="an epilogue of white space"),
    pytest.param(b"\r\n" + form(ARGUMENT), {"a": [b"1"]}, {}, id="an empty preamble"),
    pytest.param(b"pre\r\n amble \n\r\n" + form(ARGUMENT), {"a": [b"1"]}, {}, id="a preamble"),
    pytest.param(b"--b \t\r\n" + ARGUMENT + b"\r\n--b--", {"a": [b"1"]}, {}, id="padding"),
    pytest.param(b"--b\r\n" + ARGUMENT[:-1] + b"--b--", {"a": [b""]}, {}, id="empty, without a line end of its own"),
    pytest.param(b"--b\r\n" + ARGUMENT[:-1] + form(FILE), {"a": [b""]}, {"f": [UPLOAD]}, id="the same, first of two"),
    pytest.param(form(ARGUMENT[:-1]), {"a": [b""]}, {}, id="empty"),
    pytest.param(form(ARGUMENT[:-1] + b"\r\n"), {"a": [b"\r\n"]}, {}, id="a line end"),
    pytest.param(form(ARGUMENT[:-1] + b"\r\r\n\n"), {"a": [b"\r\r\n\n"]}, {}, id="line ends"),
    pytest.param(form(ARGUMENT + b"\r\n--bc\r\n"), {"a": [b"1\r\n--bc\r\n"]}, {}, id="nearly a delimiter"),
    pytest.param(form(ARGUMENT + b"--b--"), {"a": [b"1--b--"]}, {}, id="not on a line of its own"),
    pytest.param(form(ARGUMENT + b"\xff\x00"), {"a": [b"1\xff\x00"]}, {}, id="any octets"),
    pytest.param(form(b"CONTENT-disposition:FORM-DATA;name=a\r\n\r\n1"), {"a": [b"1"]}, {}, id="case, no quotes"),
    pytest.param(form(b"X: \xc3\xa9\r\n" + ARGUMENT), {"a": [b"1"]}, {}, id="another field, in UTF-8"),
    pytest.param(form(ARGUMENT.replace(b'"a"', b'"\xc3\xa9"')), {"é": [b"1"]}, {}, id="a name in UTF-8"),
    pytest.param(form(ARGUMENT.replace(b'"a"', b'"a"; filename=""')), {"a": [b"1"]}, {}, id="no file was chosen"),
]


@pytest.mark.parametrize(("body", "arguments", "files"), ACCEPTED)
def test_multipart_forms(body: bytes, arguments: Arguments, files: Files) -> None:
    assert parsed(MULTIPART, body) == (arguments, files)


REFUSED = [
    pytest.param(b"", "Invalid form-data", id="nothing"),
    pytest.param(b"--b", "Invalid form-data", id="half a delimiter"),
    pytest.param(form(ARGUMENT)[:-4], "", id="no last delimiter"),
    pytest.param(b"--b\r\n" + ARGUMENT, "Invalid form-data", id="no delimiter behind"),
    pytest.param(b"--c--\r\n", "Invalid form-data", id="another boundary"),
    pytest.param(b"--b\r\n" + ARGUMENT + b"--b--", "Invalid form-data", id="value not ended by a line end"),
    pytest.param(b"--b\r\n" + ARGUMENT + b"\n--b--", "line of its own", id="value ended by LF"),
    pytest.param(b"--b\r\n" + ARGUMENT + b"\r--b--", "line of its own", id="value ended by CR"),
    pytest.param(b"--b\n" + ARGUMENT + b"\r\n--b--", "line of its own", id="first delimiter ended by LF"),
    pytest.param(b"--b\r" + ARGUMENT + b"\r\n--b--", "line of its own", id="first delimiter ended by CR"),
    pytest.param(b"--b\x0b\r\n" + ARGUMENT + b"\r\n--b--", "line of its own", id="padding that is none"),
    pytest.param(b"x--b\r\n" + ARGUMENT + b"\r\n--b--", "line of its own", id="first delimiter behind something"),
    pytest.param(b"\n--b\r\n" + ARGUMENT + b"\r\n--b--", "line of its own", id="first delimiter behind LF"),
    pytest.param(form(ARGUMENT + b"\n--b\n" + FILE), "line of its own", id="delimiter between LFs"),
    pytest.param(form(ARGUMENT + b"\r\n--b\n" + FILE), "line of its own", id="delimiter ended by LF"),
    pytest.param(b"--b\r\n--b\r\n" + ARGUMENT + b"\r\n--b--", "", id="delimiter upon delimiter"),
    pytest.param(form(b"\r\n1"), "missing headers", id="no part header"),
    pytest.param(form(b"\r\n" + ARGUMENT), "", id="an empty line before the part header"),
    pytest.param(form(b"1"), "missing headers", id="no empty line"),
    pytest.param(form(ARGUMENT.replace(b"\r\n", b"\n")), "missing headers", id="part header of LF lines"),
    pytest.param(form(ARGUMENT.replace(b"\r\n", b"\r") + b"\r\n\r\n"), "CRLF CRLF", id="part header of CR lines"),
    pytest.param(
        form(ARGUMENT.replace(b"\r\n\r\n", b"\n\n") + b"\r\n\r\n"), "CRLF CRLF", id="an empty line ended by LF"
    ),
    pytest.param(form(b"X: a\r\n b\r\n" + ARGUMENT), "Invalid header name", id="a folded line"),
    pytest.param(form(b"X : a\r\n" + ARGUMENT), "Invalid header name", id="white space before the colon"),
    pytest.param(form(b"X\r\n" + ARGUMENT), "Invalid header name", id="no colon"),
    pytest.param(form(b": a\r\n" + ARGUMENT), "Invalid header name", id="no name"),
    pytest.param(form(b"X: a\nY: b\r\n" + ARGUMENT), "Invalid header value", id="LF in a value"),
    pytest.param(form(b"X: a\rb\r\n" + ARGUMENT), "Invalid header value", id="CR in a value"),
    pytest.param(form(b"X: a\x00b\r\n" + ARGUMENT), "Invalid header value", id="NUL in a value"),
    pytest.param(form(b"X: a\x7f\r\n" + ARGUMENT), "Invalid header value", id="DEL in a value"),
    pytest.param(form(b"X: \xff\r\n" + ARGUMENT), "codec can't decode", id="not UTF-8"),
    pytest.param(form(b"Content-Type: text/plain\r\n\r\n1"), "Content-Disposition", id="no disposition"),
    pytest.param(form(ARGUMENT.replace(b"form-data", b"attachment")), "Content-Disposition", id="another disposition"),
    pytest.param(
        form(ARGUMENT.replace(b"form-data", b"form-datax")), "Content-Disposition", id="nearly the disposition"
    ),
    pytest.param(
        form(b"Content-Disposition: form-data; name=b\r\n" + ARGUMENT), "Content-Disposition", id="two of them"
    ),
    pytest.param(form(b"Content-Disposition: form-data\r\n\r\n1"), "missing name", id="no name at all"),
    pytest.param(form(ARGUMENT.replace(b'"a"', b'""')), "missing name", id="an empty name"),
    pytest.param(form(FILE.replace(b' name="f";', b"")), "missing name", id="a file without a name"),
    pytest.param(form(ARGUMENT, FILE, b"1"), "missing headers", id="a fault behind good parts"),
    # What would take the parser's patterns seconds.
    pytest.param(b"\r\n--" * 3000 + b"\r\n" + form(ARGUMENT), "first 8192 bytes", id="a long preamble"),
    pytest.param(b"x--b" * 3000 + b"\r\n" + form(ARGUMENT), "first 8192 bytes", id="a long preamble with marks"),
    pytest.param(form(ARGUMENT)[:-4] + b" " * 1001, "blanks behind", id="many blanks behind a delimiter"),
    pytest.param(form(ARGUMENT + b"\n--b" + b"\t" * 1001), "blanks behind", id="many blanks behind LF"),
    pytest.param(form(ARGUMENT + b"\r\n--bx" * 100_001), "more than 100000", id="very many marks"),
]


@pytest.mark.parametrize(("body", "reason"), REFUSED)
def test_malformed_multipart_forms(body: bytes, reason: str) -> None:
    assert reason in refused(MULTIPART, body)


FILE_NAMES = [
    (b'filename="a.txt"', "a.txt"),
    (b"filename=a.txt", "a.txt"),
    (b'filename="a;b=c.txt"', "a;b=c.txt"),
    (rb'filename="a\"b\\c.txt"', 'a"b\\c.txt'),
    (b'filename="a%22b.txt"', 'a"b.txt'),
    (b'filename="a b\tc"', "a b\tc"),
    ('filename="测试.txt"'.encode(), "测试.txt"),
    (b"filename*=UTF-8''%C3%A1b.txt", "áb.txt"),
    (b"filename=\"ab.txt\"; filename*=utf-8'en'%C3%A1b.txt", "áb.txt"),
    (b"FILENAME=a.txt", "a.txt"),
]


@pytest.mark.parametrize(("parameter", "name"), FILE_NAMES)
def test_file_names(parameter: bytes, name: str) -> None:
    part = b'Content-Disposition: form-data; name="f"; ' + parameter + b"\r\n\r\n2"
    assert parsed(MULTIPART, form(part)) == (
        {},
        {"f": [HTTPFile(filename=name, body=b"2", content_type="application/unknown")]},
    )


def test_multipart_forms_can_be_forbidden(process_config: ParseBodyConfig) -> None:
    process_config.multipart.enabled = False
    assert refused(MULTIPART, form(ARGUMENT)) == "multipart/form-data parsing is disabled"
    with pytest.raises(HTTPInputError, match="disabled"):
        parse_multipart_form_data(b"b", form(ARGUMENT), {}, {})
    parse_multipart_form_data(b"b", form(ARGUMENT), {}, {}, config=ParseMultipartConfig())


def test_the_number_of_parts_is_limited() -> None:
    assert parsed(MULTIPART, form(*[ARGUMENT] * 100)) == ({"a": [b"1"] * 100}, {})
    assert "too many parts, limit 100" in refused(MULTIPART, form(*[ARGUMENT] * 101))
    config = ParseBodyConfig(multipart=ParseMultipartConfig(max_parts=0))
    assert parsed(MULTIPART, form(), config) == ({}, {})
    assert "too many parts, limit 0" in refused(MULTIPART, form(ARGUMENT), config)


def test_the_size_of_a_part_header_is_limited() -> None:
    config = ParseBodyConfig(multipart=ParseMultipartConfig(max_part_header_size=len(ARGUMENT) - 5))
    assert parsed(MULTIPART, form(ARGUMENT), config) == ({"a": [b"1"]}, {})
    assert "header too large" in refused(MULTIPART, form(FILE), config)
    for filler in (b"x", b"\r\n ", b"\n", b"X: y\r\n", b"\r\n--c"):
        assert "header too large" in refused(MULTIPART, form(filler * 20000 + b"\r\n\r\n"))


@pytest.mark.parametrize("filler", [b"x", b"\r", b"\n", b"\r\n", b"\r\n--bc", b"\r\n--b-", b"--b--", b"-", b" "])
def test_the_parser_is_handed_every_byte_once(filler: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    events = 0
    receive, next_event = MultipartDecoder.receive_data, MultipartDecoder.next_event

    def count_bytes(decoder: MultipartDecoder, data: bytes | None) -> None:
        handed.append(len(data or b""))
        receive(decoder, data)

    def count_events(decoder: MultipartDecoder) -> object:
        nonlocal events
        events += 1
        return next_event(decoder)

    monkeypatch.setattr(MultipartDecoder, "receive_data", count_bytes)
    monkeypatch.setattr(MultipartDecoder, "next_event", count_events)
    body = form(ARGUMENT + filler * (200_000 // len(filler)), FILE)
    assert parsed(MULTIPART, body)[1] == {"f": [UPLOAD]}
    assert sum(handed) == len(body)
    assert events < 20


@pytest.mark.parametrize(
    "filler",
    [
        b"x",
        b"\r",
        b"\r\n",
        b"\r\n--bc",
        b"\r\n--b-",
        b"--b--",
        b"\n--b" + b" " * 900 + b"x",
        b"\r\n--b" + b"\t" * 700 + b"x",
    ],
)
def test_no_step_takes_long(filler: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    receive = MultipartDecoder.receive_data

    def count_bytes(decoder: MultipartDecoder, data: bytes | None) -> None:
        handed.append(len(data or b""))
        receive(decoder, data)

    body = form(ARGUMENT + filler * (20_000 // len(filler)), FILE)
    whole = parsed(MULTIPART, body)
    monkeypatch.setattr(MultipartDecoder, "receive_data", count_bytes)
    for step in range(2000, 2000 + min(len(filler), 40)):
        monkeypatch.setattr(forms, "_STEP", step)
        assert parsed(MULTIPART, body) == whole
    assert max(handed) < 2040


def test_a_great_many_delimiters_are_not_read_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    receive = MultipartDecoder.receive_data

    def count_bytes(decoder: MultipartDecoder, data: bytes | None) -> None:
        handed.append(len(data or b""))
        receive(decoder, data)

    monkeypatch.setattr(MultipartDecoder, "receive_data", count_bytes)
    refused(MULTIPART, form(*[ARGUMENT] * 50_000))
    assert len(handed) < 110


# --- the same form, read another way ----------------------------------------------------------------------------------


def by_the_grammar(body: bytes) -> list[bytes] | None:
    """Return the parts, header section and value, that RFC 2046 section 5.1.1 finds; None if no form is there."""
    text = b"\r\n" + body
    parts = []
    start = None
    while True:
        match = re.compile(rb"\r\n--b(--|[ \t]*\r\n)").search(text, (start or 0) if start is None else start)
        # The last line end of a part header may be that of the delimiter.
        if start is not None:
            blank = text.find(b"\r\n\r\n", start)
            if blank >= 0 and text.startswith(b"\r\n--b", blank + 2):
                match = re.compile(rb"\r\n--b(--|[ \t]*\r\n)").match(text, blank + 2) or match
        if match is None:
            return None
        if start is not None:
            parts.append(text[start : match.start()])
        if match[1] == b"--":
            return parts
        start = match.end()


PIECES = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\r",
            b"\n",
            b"--b",
            b"--b--",
            b"--b\r\n",
            b"\r\n--b\r\n",
            b"\r\n--b--",
            b"--",
            b" ",
            b"x",
            b"\r\n\r\n",
            b"\xff",
        ),
        *(
            b"Content-Disposition: form-data; name=a\r\n",
            b"Content-Disposition: form-data; name=a\r\n\r\n",
            b"X: y\r\n",
        ),
    ]
)
HEAD = b"Content-Disposition: form-data; name=a\r\n\r\n"


@given(st.lists(PIECES, max_size=12).map(b"".join), st.booleans(), st.booleans())
def test_what_is_accepted_is_what_the_grammar_says(middle: bytes, head: bool, tail: bool) -> None:
    body = (b"--b\r\n" + HEAD if head else b"") + middle + (b"\r\n--b--" if tail else b"")
    try:
        arguments, files = parsed(MULTIPART, body)
    except HTTPInputError:
        return
    parts = by_the_grammar(body)
    assert parts is not None
    assert files == {}
    assert arguments.get("a", []) == [part.partition(b"\r\n\r\n")[2] for part in parts]


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters='"\\%'), min_size=1)


@given(st.lists(st.tuples(NAMES, st.none() | NAMES, st.binary().filter(lambda value: b"--b" not in value)), max_size=8))
def test_forms_come_back(parts: list[tuple[str, str | None, bytes]]) -> None:
    written, arguments, files = [], Arguments(), Files()
    for name, filename, value in parts:
        parameter = "" if filename is None else f'; filename="{filename}"'
        written.append(f'Content-Disposition: form-data; name="{name}"{parameter}\r\n\r\n'.encode() + value)
        if filename is None:
            arguments.setdefault(name, []).append(value)
        else:
            files.setdefault(name, []).append(
                HTTPFile(filename=filename, body=value, content_type="application/unknown")
            )
    assert parsed(MULTIPART, form(*written)) == (arguments, files)


# --- HTTPFile ---------------------------------------------------------------------------------------------------------


def test_a_file_is_a_dict_and_has_attributes() -> None:
    upload = HTTPFile(filename="a", body=b"b", content_type="c")
    assert upload == {"filename": "a", "body": b"b", "content_type": "c"}
    assert (upload.filename, upload["body"], upload.content_type) == ("a", b"b", "c")
    upload.filename = "d"
    assert upload["filename"] == "d"
    with pytest.raises(AttributeError, match="'HTTPFile' object has no attribute 'other'"):
        _ = upload.other
    for other in (copy.copy(upload), copy.deepcopy(upload), pickle.loads(pickle.dumps(upload))):
        assert type(other) is HTTPFile
        assert other == upload


# --- werkzeug is loaded when a multipart form comes -------------------------------------------------------------------


@pytest.mark.slow
def test_werkzeug_is_loaded_for_multipart_forms_only() -> None:
    code = (
        "import sys, bridge.core.httputil as h\n"
        "h.parse_body_arguments('application/x-www-form-urlencoded', b'a=1', {}, {})\n"
        "h.parse_cookie('a=b')\n"
        "print('werkzeug' in sys.modules)\n"
        "h.parse_body_arguments('multipart/form-data; boundary=b', b'--b--', {}, {})\n"
        "print('werkzeug' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.split() == ["False", "True"]


# ---------------------------------------------------------------------- costs


def test_percent_signs_without_digits_are_limited() -> None:
    assert forms.parse_query(b"a=" + b"%41%" * 10_000)["a"] == [b"A%" * 10_000]
    for body in (b"a=" + b"%41%" * 10_001, b"&".join([b"a=" + b"%" * 100] * 101), b"%" * 10_001 + b"=a"):
        with pytest.raises(HTTPInputError, match="Invalid query string: more than 10000 percent signs"):
            forms.parse_query(body)


def test_the_size_of_a_urlencoded_form_is_limited() -> None:
    arguments: Arguments = {}
    body = b"a=" + b"%41" * 100
    config = ParseBodyConfig(urlencoded=ParseUrlEncodedConfig(max_size=len(body)))
    parse_body_arguments(URLENCODED, body, arguments, {}, config=config)
    assert arguments == {"a": [b"A" * 100]}
    with pytest.raises(HTTPInputError, match=r"303 bytes, limit 302 \(ParseUrlEncodedConfig.max_size\)"):
        parse_body_arguments(URLENCODED, body + b"x", arguments, {}, config=config)


@pytest.mark.parametrize("unit", [b"%41", b"+%41", b"%3D=", b"%0D%0A", b"%25", b"=", b"x"])
def test_a_large_form_is_decoded_as_the_standard_library_decodes_it(unit: bytes) -> None:
    value = unit * (100_000 // len(unit))
    assert forms.parse_query(b"a=" + value)["a"] == [unquote_to_bytes(value.replace(b"+", b" "))]
