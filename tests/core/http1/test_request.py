from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead
from bridge.core.http1 import request as module
from bridge.core.http1.request import parse_fields, parse_head, parse_head_pure
from bridge.errors import LimitExceeded, RemoteProtocolError, RequestSyntaxError
from tests.support.cuts import CUTS, at_random, bytewise, cut_at, single_cuts, whole
from tests.support.hostile import (
    CONTROLS,
    HOSTS,
    MALFORMED_CODINGS,
    NO_HOST,
    NO_LENGTH,
    NO_VERSION,
    NOT_TCHAR,
    TCHAR,
    TEXT,
    VCHAR,
)
from tests.support.reader import Refused, head_values, read_head
from tests.support.table import table

LINE = b"GET / HTTP/1.1\r\n"
GET = LINE + b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
END = b"\r\n\r\n"


def octets(values: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in values]


def refused(wire: bytes, status: int = 400, name: str = "") -> object:
    return pytest.param(wire, status, id=f"{name or repr(wire)[2:-1]:.70}-{status}")


REQUEST_LINES = [
    # parts and what is between them (RFC 9112 section 3)
    *(b"GET", b"GET ", b"GET /", b"GET / ", b"/ HTTP/1.1", b" / HTTP/1.1", b"GET  HTTP/1.1", b"GET HTTP/1.1"),
    b"HTTP/1.1",
    *(b" GET / HTTP/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/1.1 x"),
    b"GET / x HTTP/1.1",
    *(b"GET / a HTTP/1.1 b", b"GET / HTTP/1.1, HTTP/1.0", b"GET /a b HTTP/1.1", b"\tGET / HTTP/1.1"),
    b"GET / HTTP/1.1\t",
    *(b"GET" + octet + b"/ HTTP/1.1" for octet in octets(b"\t\x0b\x0c\x1c\x1d\x1e\x1f\x00\x7f\x85\xa0,;:/")),
    *(b"GET /" + octet + b"HTTP/1.1" for octet in octets(b"\t\x0b\x0c\x1c\x1d\x1e\x1f\x00\x7f\x85\xa0,;")),
    *(b"GET" + space.encode() + b"/ HTTP/1.1" for space in "\u2003\u3000\u00a0\u2028\ufeff"),
    *(b"GET /\r HTTP/1.1", b"GET\r / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET /\n HTTP/1.1", b"GET / HTTP/1.1\n"),
    b"G\nET / HTTP/1.1",
    # the method is a token
    *(b"G" + octet + b"T / HTTP/1.1" for octet in octets(NOT_TCHAR.replace(b" ", b""))),
    *(octet + b"GET / HTTP/1.1" for octet in octets(NOT_TCHAR.replace(b"\r", b"").replace(b"\n", b""))),
    *(b'"GET" / HTTP/1.1', b"GET, / HTTP/1.1", b"GET: / HTTP/1.1", b"\xef\xbb\xbfGET / HTTP/1.1"),
    # the target: visible ASCII without "#"
    *(b"GET /a" + octet + b"b HTTP/1.1" for octet in octets(CONTROLS)),
    *(b"GET /a" + octet + b"b HTTP/1.1" for octet in octets(bytes(range(0x80, 0x100)))),
    *(b"GET /a#b HTTP/1.1", b"GET # HTTP/1.1", b"GET /# HTTP/1.1", b"GET http://a/#b HTTP/1.1"),
    b"GET /\xff\xfe HTTP/1.1",
    # its forms (section 3.2)
    *(b"GET foo HTTP/1.1", b"GET foo/bar HTTP/1.1", b"GET ?a=b HTTP/1.1", b"GET a:80 HTTP/1.1", b"GET :80/x HTTP/1.1"),
    *(b"GET a.test HTTP/1.1", b"GET ../x HTTP/1.1", b"GET ./x HTTP/1.1", b"GET \\x HTTP/1.1", b"GET %2Fx HTTP/1.1"),
    *(b"GET * HTTP/1.1", b"POST * HTTP/1.1", b"HEAD * HTTP/1.1", b"options * HTTP/1.1", b"OPTIONS ** HTTP/1.1"),
    b"OPTIONS *? HTTP/1.1",
    *(b"OPTIONS a HTTP/1.1", b"OPTIONS a:80 HTTP/1.1", b"GET ftp://a/x HTTP/1.1", b"GET ws://a/ HTTP/1.1"),
    b"GET file:///x HTTP/1.1",
    *(b"GET javascript:x HTTP/1.1", b"GET mailto:a@b HTTP/1.1", b"GET http:/a HTTP/1.1", b"GET http:a HTTP/1.1"),
    b"GET http HTTP/1.1",
    *(b"GET http:// HTTP/1.1", b"GET http:///x HTTP/1.1", b"GET http://?x HTTP/1.1", b"GET https:// HTTP/1.1"),
    b"GET ://a/ HTTP/1.1",
    *(b"GET http//a/ HTTP/1.1", b"GET http:\\\\a\\ HTTP/1.1", b"GET xhttp://a/ HTTP/1.1"),
    *(b"GET http://user@a/ HTTP/1.1", b"GET http://u:p@a/ HTTP/1.1", b"GET http://@a/ HTTP/1.1"),
    b"GET http://a\\b/ HTTP/1.1",
    *(b"GET http://" + host + b"/ HTTP/1.1" for host in NO_HOST if not set(host) & set(b" \t/?#\x00\x7f\x1c\x0b")),
    *(b"CONNECT / HTTP/1.1", b"CONNECT /a:80 HTTP/1.1", b"CONNECT http://a/ HTTP/1.1", b"CONNECT a/b HTTP/1.1"),
    # the version (section 2.3)
    *(b"GET / " + version for version in NO_VERSION if b" " not in version),
    b"GET / HTTP/ 1.1", b"GET / HTTP/1. 1", b"GET / HTTP /1.1", b"GET /HTTP/1.1",
    # other protocols on the port
    *(b"HTTP/1.1 200 OK", b"SSH-2.0-OpenSSH_9.9", b"EHLO a.test", b"USER a", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2"),
    *(b"*1", b"stats"),
    *(b"OPTIONS sip:a SIP/2.0", b"DESCRIBE rtsp://a/ RTSP/1.0", b"GET / HTTP/1.1\xc0\x80", b"{}", b"<?xml?>", b"$4"),
    b"\x05\x01",
    *(b"\x16\x03\x01\x02\x00\x01\x00", b"\x80\x2e\x01", b"\x00\x00\x00\x04", b"\xff\xff\xff\xff", b"\x00", b"A" * 50),
]  # fmt: skip

FIELD_LINES = [
    # names (RFC 9112 section 5.1): a token, at once followed by the colon
    *(b"X" + octet + b": v" for octet in octets(NOT_TCHAR.replace(b":", b""))),
    *(b"X" + octet + b"Y: v" for octet in octets(NOT_TCHAR.replace(b":", b""))),
    *(octet + b"X: v" for octet in octets(NOT_TCHAR.replace(b":", b""))),
    *(b": v", b":", b" : v", b"::", b"foobar", b"foo bar", b"foo=bar", b"X", b"X ", b" X: v", b"\tX: v", b"X  : v"),
    b"X \t: v",
    *(b"GET / HTTP/1.1", b"HTTP/1.1 200 OK", b"Host", b"Host a", b"Content-Length", b"Content-Length 5", b"-"),
    b"\xef\xbb\xbfX: v",
    *(name.encode() + b": v" for name in ("X-\xfc", "\u212a", "Trans\u0192er", "X\u200b", "X\xa0")),
    # folding (section 5.2)
    *(b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n a", b"X: a\r\n ", b"X: a\r\n  b: c", b" X: a", b"\tX: a"),
    # values (RFC 9110 section 5.5), and line ends that are none (RFC 9112 section 2.2)
    *(b"X: a" + octet + b"b" for octet in octets(CONTROLS)),
    *(b"X:" + octet + b"b" for octet in octets(CONTROLS.replace(b"\n", b"").replace(b"\r", b""))),
    *(b"X: a" + octet for octet in octets(CONTROLS.replace(b"\n", b"").replace(b"\r", b""))),
    *(b"X: a\rY: b", b"X: a\nY: b", b"X: a\r\rY: b", b"X: a\n\rY: b", b"X: a\r\r\nY: b", b"X: a\n\nY: b"),
    b"X: a\r \nY: b",
    *(b"X: a\nTransfer-Encoding: chunked", b"X: a\rTransfer-Encoding: chunked", b"X: a\r\rContent-Length: 5"),
    *(b"X\r: a", b"X\n: a", b"\rX: a", b"\nX: a", b"X: a\x00", b"X\x00: a", b"X: \x00", b"X: a\x00\r\nY: b"),
    # steering fields whose name only looks right
    *(b"Content-Length : 5", b"Transfer-Encoding : chunked", b"Content-Length\t: 5", b" Content-Length: 5"),
    b"Transfer-Encoding\x00: chunked",
    *(b"Transfer-Encoding\x0b: chunked", b"Transfer-Encoding\xa0: chunked", b"Content-Length\x1c: 5"),
    b"Content Length: 5",
    # Content-Length (RFC 9110 section 8.6)
    *(b"Content-Length: " + value for value in NO_LENGTH),
    *(b"Content-Length: 5\r\nContent-Length: " + value for value in (b"5", b"6", b"", b"x", b"05")),
    *(b"Content-Length: 5\r\nX: y\r\ncONTENT-lENGTH: 46", b"content-length: 0\r\nCONTENT-LENGTH: 5"),
    # Transfer-Encoding (RFC 9112 section 6.1)
    *(b"\r\n".join(b"Transfer-Encoding: " + value for value in values) for values in MALFORMED_CODINGS),
    *(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    *(b"Transfer-Encoding: chunked\r\nContent-Length: 0", b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5"),
    *(b"Content-Length: x\r\nTransfer-Encoding: chunked", b"TRANSFER-ENCODING: chunked\r\nCONTENT-LENGTH:"),
    # a second Host (section 3.2)
    *(b"Host: a", b"Host: b", b"Host:", b"hOST: a", b"X: y\r\nHost: a"),
]  # fmt: skip

BAD_ENDS = [
    *(
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r",
        b"\n\r\n",
        b"\n\n",
        b"\r \n",
        b"\r\x00\n",
        b"\x00\r\n",
        b"\x0b",
        b"\x85",
        b"\x1e",
    ),
]
BAD_LAST_ENDS = [
    *(
        b"\r\n\n",
        b"\n\n",
        b"\n\r\n",
        b"\r\r",
        b"\r\r\r\r",
        b"\r\n\r\x00\n",
        b"\r\r\n\r\n",
        b"\x00\r\n\r\n",
        b"\r\n \r\n\r\n",
    ),
    *(b"\n\r\n\r\n", b"\r\n\r\r\n", b"\r\n\n\r\n"),
]

REFUSED = [
    *(refused(line + b"\r\nHost: a" + END) for line in dict.fromkeys(REQUEST_LINES)),
    *(refused(GET + line + END) for line in dict.fromkeys(FIELD_LINES)),
    *(refused(LINE + b"Host: " + host + END) for host in dict.fromkeys(NO_HOST)),
    # no Host (section 3.2)
    refused(LINE + b"\r\n"),
    refused(LINE + b"X: y" + END),
    refused(LINE + b"X-Host: a" + END),
    refused(LINE + b"Host_: a" + END),
    refused(b"GET http://a/ HTTP/1.1\r\nX: y" + END),
    refused(b"GET http://a/ HTTP/1.1\r\nHost:" + END),
    refused(b"GET http://a/ HTTP/1.1\r\nHost: a/b" + END),
    refused(b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a" + END),
    refused(b"GET / HTTP/1.0\r\nHost:" + END),
    refused(b"GET / HTTP/1.0\r\nHost: a b" + END),
    refused(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a" + END),
    # codings in HTTP/1.0 (section 6.1)
    refused(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked" + END),
    refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked" + END),
    refused(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity" + END),
    refused(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 51" + END),
    # line ends (section 2.2): each CRLF of a good request spoilt in each way
    *(refused(b"GET / HTTP/1.1" + end + b"Host: a\r\nX: y" + END) for end in BAD_ENDS),
    *(refused(LINE + b"Host: a" + end + b"X: y" + END) for end in BAD_ENDS),
    *(refused(GET + b"X: y" + end) for end in BAD_LAST_ENDS),
    # white space in front of the first field line, or a line of nothing else (section 2.2)
    refused(LINE + b" Host: a" + END),
    refused(LINE + b"\tX: y\r\nHost: a" + END),
    refused(LINE + b" \r\nHost: a" + END),
    refused(LINE + b"\t" + END),
    refused(LINE + b" " + END),
    # what a complete head starts with
    refused(b"\r\n" + GET + b"\r\n"),
    refused(b"\n" + GET + b"\r\n"),
    refused(b"\r" + GET + b"\r\n"),
    refused(END),
    # versions, methods and codings that are understood, but not here
    refused(b"GET / HTTP/2.0\r\nHost: a" + END, 505),
    refused(b"GET / HTTP/0.9\r\nHost: a" + END, 505),
    refused(b"GET / HTTP/3.0\r\nHost: a" + END, 505),
    refused(b"GET / HTTP/9.9\r\nHost: a" + END, 505),
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    refused(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a" + END, 501),
    refused(b"CONNECT a HTTP/1.1\r\nHost: a" + END, 501),
    refused(POST + b"Transfer-Encoding: gzip, chunked" + END),
    refused(POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked" + END),
    refused(POST + b"Transfer-Encoding: identity, chunked" + END),
    # sizes
    refused(POST + b"Content-Length: 18446744073709551621" + END, 413),
    refused(POST + b"Content-Length: " + b"9" * 8000 + END, 413, "8000 digits"),
    refused(POST + b"Content-Length: " + b"0" * 18 + b"5" + END, 413),
    refused(POST + b"Content-Length: " + b"9" * 100000 + END, 431, "100000 digits"),
    refused(b"GET /" + b"a" * 8177 + b" HTTP/1.1\r\nHost: a" + END, 414, "request line of 8191"),
    refused(b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: a" + END, 414, "request line of 70000"),
    refused(b"A" * 10000 + b" / HTTP/1.1\r\nHost: a" + END, 414, "method of 10000"),
    refused(GET + b"X: " + b"a" * 8188 + END, 431, "field line of 8191"),
    refused(GET + b"X: " + b"a" * 100000 + END, 431, "field line of 100000"),
    refused(GET + b"a" * 100000 + b": v" + END, 431, "name of 100000"),
    refused(LINE + b"Host: " + b"a" * 9000 + END, 431, "Host of 9000"),
    refused(GET + b"X: y\r\n" * 100 + b"\r\n", 431, "101 fields"),
    refused(GET + b"X: y\r\n" * 10000 + b"\r\n", 431, "10001 fields"),
    refused(GET + b"".join(b"X%d: %b\r\n" % (n, b"v" * 1000) for n in range(70)) + b"\r\n", 431, "70 KiB"),
]  # fmt: skip


def cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Every way in which a head is replayed; all cuts in two only where there are not too many."""
    if len(wire) > 12000:
        yield from (whole(wire), cut_at(wire, range(0, len(wire), 997)), at_random(wire))
        return
    for cut in CUTS:
        yield cut(wire)
    if len(wire) < 300:
        yield from single_cuts(wire)


@table("wire, status", REFUSED)
def test_refuses(wire: bytes, status: int) -> None:
    for pieces in cuts(wire):
        answer = read_head(pieces)
        assert isinstance(answer, Refused), pieces
        assert answer.status == status, pieces
    # What stands in front in the buffer, here a CR, is no part of it.
    behind = read_head([wire], offset=3)
    assert isinstance(behind, Refused)
    assert behind.status == status


def of(wire: bytes, **expected: object) -> object:
    return pytest.param(wire, expected, id=f"{wire!r:.80}")


PLAIN = {"content_length": 0, "keep_alive": True, "expect_continue": False, "upgrade": b"", "query": b""}
STAYS = [
    *(b"Connection: x", b"Connection:", b"Connection: closed", b"Connection: keep-alive", b'Connection: "close"'),
    *(b"Connection: close;x", b"Connection: \xa0close", b"Keep-Alive: timeout=5", b"Proxy-Connection: close"),
    *(b"X-Connection: close", b"Connection: keep-alive, x\r\nConnection: y"),
]
CLOSES = [
    *(
        b"Connection: close",
        b"Connection: CLOSE",
        b"connection:\tClose ",
        b"Connection: x,\tClose",
        b"Connection: ,close,",
    ),
    *(
        b"Connection: keep-alive, close",
        b"Connection: close, keep-alive",
        b"Connection: close\r\nConnection: keep-alive",
    ),
    *(b"Connection: keep-alive\r\nConnection: close", b"Connection: close\r\nX: y\r\nConnection:"),
]
STAYS_1_0 = [
    b"Connection: keep-alive",
    b"Connection: Keep-Alive",
    b"Connection: x, keep-alive",
    b"X: y\r\nCONNECTION:KEEP-ALIVE",
]
CLOSES_1_0 = [b"Connection: x", b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Connection:", b"X: y"]
EXPECTS = [
    *(
        b"Expect: 100-continue",
        b"EXPECT: 100-CONTINUE",
        b"Expect: 100-continue, x",
        b"Expect: x\r\nExpect: 100-Continue",
    ),
]
EXPECTS_NOTHING = [
    *(b"Expect: 200-ok", b"Expect: 100", b"Expect: 100-continued", b"Expect:", b"Expect: 100-continue;q=1", b"X: y"),
    *(b"Expect: x100-continue", b"X-Expect: 100-continue", b'Expect: "100-continue"', b"Expect: 100 -continue"),
]
METHODS = [b"get", b"FROB", b"M-SEARCH", b"TRACE", b"1", TCHAR, b"A" * 8000]
ACCEPTED = [
    of(GET + b"\r\n", method=b"GET", target=b"/", path=b"/", version=b"1.1", host=b"a", fields=[(b"host", b"a")],
        **PLAIN),
    # methods: any token, case kept
    *(of(m + b" / HTTP/1.1\r\nHost: a" + END, method=m) for m in METHODS),
    # targets
    *(
        of(b"GET " + target + b" HTTP/1.1\r\nHost: a" + END, target=target, path=path, query=query, host=b"a")
        for target, path, query in [
            (b"/a/b?c=d&e", b"/a/b", b"c=d&e"),
            (b"/?", b"/", b""),
            (b"/??", b"/", b"?"),
            (b"/a?b?c", b"/a", b"b?c"),
            (b"//evil.test/x", b"//evil.test/x", b""),
            (b"///", b"///", b""),
            (b"/../../etc", b"/../../etc", b""),
            (b"/a+b%2Fc%00%ff%zz%", b"/a+b%2Fc%00%ff%zz%", b""),
            (b"/http://b/c", b"/http://b/c", b""),
            (b"/a?http://b/c", b"/a", b"http://b/c"),
            (b"/*", b"/*", b""),
            (b"/" + VCHAR.replace(b"#", b"").replace(b"?", b""), b"/" + VCHAR.replace(b"#", b"").replace(b"?", b""),
                b""),
        ]
    ),
    # absolute-form: the authority takes the place of Host (RFC 9112 section 3.2.2)
    *(
        of(b"GET " + target + b" HTTP/1.1\r\nX: y\r\nHost: a\r\nZ: z" + END, target=target, path=path, query=query,
            host=host,
           fields=[(b"host", host), (b"x", b"y"), (b"z", b"z")])
        for target, path, query, host in [
            (b"http://b.test/x?y", b"/x", b"y", b"b.test"),
            (b"http://b.test", b"/", b"", b"b.test"),
            (b"http://b.test/", b"/", b"", b"b.test"),
            (b"http://b.test?y/z", b"/", b"y/z", b"b.test"),
            (b"HTTPS://b.test:8443//x", b"//x", b"", b"b.test:8443"),
            (b"hTTp://[::1]:80/x", b"/x", b"", b"[::1]:80"),
            (b"http://b/http://c/", b"/http://c/", b"", b"b"),
        ]
    ),
    of(b"GET http://b/ HTTP/1.0" + END, version=b"1.0", host=b"b", fields=[(b"host", b"b")], path=b"/"),
    of(b"OPTIONS * HTTP/1.1\r\nHost: a" + END, target=b"*", path=b"*", query=b""),
    of(b"OPTIONS http://b HTTP/1.1\r\nHost: a" + END, path=b"*", query=b"", host=b"b"),
    of(b"OPTIONS http://b/ HTTP/1.1\r\nHost: a" + END, path=b"/", host=b"b"),
    of(b"OPTIONS /a?b HTTP/1.1\r\nHost: a" + END, path=b"/a", query=b"b"),
    # versions
    of(b"GET / HTTP/1.0" + END, version=b"1.0", host=b"", keep_alive=False, fields=[]),
    of(b"GET / HTTP/1.0\r\nHost: a" + END, version=b"1.0", host=b"a", keep_alive=False),
    of(b"GET / HTTP/1.2\r\nHost: a" + END, version=b"1.1", keep_alive=True),
    of(b"GET / HTTP/1.9\r\nHost: a" + END, version=b"1.1"),
    # Host
    *(of(LINE + b"Host: " + host + END, host=host) for host in HOSTS),
    of(LINE + b"hOsT:a" + END, host=b"a", fields=[(b"host", b"a")]),
    of(LINE + b"X: y\r\nHost: \t a \t" + END, host=b"a", fields=[(b"x", b"y"), (b"host", b"a")]),
    # fields: names in lower case, values without their surrounding white space, order and repetition kept
    of(GET + b"X:" + END, fields=[(b"host", b"a"), (b"x", b"")]),
    of(GET + b"X: \t " + END, fields=[(b"host", b"a"), (b"x", b"")]),
    of(GET + b"X:y" + END, fields=[(b"host", b"a"), (b"x", b"y")]),
    of(GET + b"X:\t y\tz \t" + END, fields=[(b"host", b"a"), (b"x", b"y\tz")]),
    of(GET + b"X: : y: z:" + END, fields=[(b"host", b"a"), (b"x", b": y: z:")]),
    of(GET + b"x-Y: 1\r\nX-y: 2\r\nX-Y: 1" + END, fields=[(b"host", b"a"), (b"x-y", b"1"), (b"x-y", b"2"), (b"x-y",
        b"1")]),
    of(GET + TCHAR + b": " + TEXT + END, fields=[(b"host", b"a"), (TCHAR.lower(), TEXT.strip(b" \t"))]),
    of(GET + b"X: \xa0y\x85" + END, fields=[(b"host", b"a"), (b"x", b"\xa0y\x85")]),
    of(GET + b"Content_Length: 5\r\nTransfer_Encoding: chunked" + END, content_length=0),
    of(GET + b"X-Content-Length: 5\r\nXTransfer-Encoding: chunked" + END, content_length=0),
    of(GET + b"Proxy: http://evil.test" + END, fields=[(b"host", b"a"), (b"proxy", b"http://evil.test")]),
    # content
    of(POST + b"Content-Length: 0" + END, content_length=0),
    of(POST + b"Content-Length: 5" + END, content_length=5),
    of(POST + b"content-LENGTH:\t5 " + END, content_length=5),
    of(POST + b"Content-Length: 0005" + END, content_length=5),
    of(POST + b"Content-Length: 999999999999999999" + END, content_length=10**18 - 1),
    of(b"POST / HTTP/1.0\r\nContent-Length: 5" + END, content_length=5),
    of(GET + b"Content-Length: 5" + END, content_length=5),
    of(POST + b"Transfer-Encoding: chunked" + END, content_length=None),
    of(POST + b"transfer-encoding:CHUNKED" + END, content_length=None),
    # persistence (section 9.3): Connection is a list, close wins
    *(of(GET + lines + END, keep_alive=True) for lines in STAYS),
    *(of(GET + lines + END, keep_alive=False) for lines in CLOSES),
    *(of(b"GET / HTTP/1.0\r\n" + lines + END, keep_alive=True) for lines in STAYS_1_0),
    *(of(b"GET / HTTP/1.0\r\n" + lines + END, keep_alive=False) for lines in (*CLOSES, *CLOSES_1_0)),
    # Expect (RFC 9110 section 10.1.1): for HTTP/1.1 with content only
    *(of(POST + b"Content-Length: 5\r\n" + line + END, expect_continue=True) for line in EXPECTS),
    *(of(POST + b"Content-Length: 5\r\n" + line + END, expect_continue=False) for line in EXPECTS_NOTHING),
    of(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked" + END, expect_continue=True),
    of(POST + b"Expect: 100-continue" + END, expect_continue=False),
    of(POST + b"Content-Length: 0\r\nExpect: 100-continue" + END, expect_continue=False),
    of(b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue" + END, expect_continue=False),
    # Upgrade (RFC 9110 section 7.8): only if Connection names it
    *(
        of(b"GET / HTTP/%b\r\nHost: a\r\n" % version + lines + END, upgrade=wanted)
        for version, lines, wanted in [
            (b"1.1", b"Connection: Upgrade\r\nUpgrade: WebSocket", b"websocket"),
            (b"1.1", b"Upgrade: websocket\r\nConnection: keep-alive, upgrade", b"websocket"),
            (b"1.1", b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\nUpgrade: X/1", b"h2c, websocket, x/1"),
            (b"1.1", b"Upgrade: websocket", b""),
            (b"1.1", b"Connection: upgrade", b""),
            (b"1.1", b"Connection: upgraded\r\nUpgrade: websocket", b""),
            (b"1.0", b"Connection: upgrade\r\nUpgrade: websocket", b""),
        ]
    ),
    # the largest that pass
    of(b"GET /" + b"a" * 8176 + b" HTTP/1.1\r\nHost: a" + END, path=b"/" + b"a" * 8176),
    of(GET + b"X: " + b"a" * 8187 + END, fields=[(b"host", b"a"), (b"x", b"a" * 8187)]),
    of(GET + b"X: y\r\n" * 99 + b"\r\n", fields=[(b"host", b"a"), *[(b"x", b"y")] * 99]),
]  # fmt: skip


@table("wire, expected", ACCEPTED)
def test_accepts(wire: bytes, expected: dict[str, object]) -> None:
    rest = b"\nrest\r\n\r\n"
    found = read_head([wire + rest])
    assert isinstance(found, tuple), found
    head, left = found
    assert left == rest
    assert head.size == len(wire)
    seen = {name: list(head.fields) if name == "fields" else getattr(head, name) for name in expected}
    assert seen == expected
    values = head_values(head)
    for pieces in cuts(wire + rest):
        found = read_head(pieces)
        assert isinstance(found, tuple), pieces
        assert head_values(found[0]) == values
        assert found[1] == rest
    assert read_head([wire[:-1]]) is None
    behind = read_head([wire], offset=5)
    assert isinstance(behind, tuple)
    assert head_values(behind[0]) == values


INCOMPLETE = [
    *(b"", b"G", b"GET", b"GET ", b"GET /", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", LINE, GET, GET + b"\r", GET[:-1]),
    *(GET + b"X", GET + b"X: y", GET + b"X: y\r", GET + b"X: y\r\n", b"stats\r\n", b"EHLO a\r\n"),
    b"*1\r\n$4\r\nPING\r\n",
    *(b"GET /\r\n", b"A" * 8190, b"GET /" + b"a" * 8185, GET + b"X: " + b"a" * 8187, GET + b"X: y\r\n" * 99),
]  # fmt: skip


@pytest.mark.parametrize("wire", INCOMPLETE, ids=lambda wire: f"{wire!r:.50}")
def test_waits_for_more(wire: bytes) -> None:
    for pieces in cuts(wire):
        assert read_head(pieces) is None


# What no further byte can mend is refused at once, not when a deadline passes.
REFUSED_EARLY = [
    *((octet, 400) for octet in octets(NOT_TCHAR)),
    *((b"\x16\x03\x01", 400), (b" GET", 400), (b"\x00", 400), (b"\xef\xbb\xbf", 400), (b"(", 400), (b"\r\n", 400)),
    *((b"GET / HTTP/1.1\n", 400), (b"GET / HTTP/1.1\rX", 400), (b"GET /\x00", 400), (GET + b"X: a\nb", 400),
        (GET + b"X\rY", 400)),
    *((GET + b"\rX", 400), (GET + b"\n", 400), (GET + b"X: \x00", 400)),
    *((b"A" * 8192, 414), (b"GET /" + b"a" * 8200, 414), (b"GET / HTTP/1.1" + b" " * 8200, 414), (b"A" * 70000, 414)),
    *((GET + b"X: " + b"a" * 8200, 431), (GET + b"a" * 8192, 431), (GET + b"X: y\r\n" * 20000, 431)),
    (GET + b"".join(b"X%d: %b\r\n" % (n, b"v" * 1000) for n in range(66)), 431),
]  # fmt: skip


@table("wire, status", REFUSED_EARLY)
def test_refuses_before_the_end(wire: bytes, status: int) -> None:
    for pieces in cuts(wire):
        answer = read_head(pieces)
        assert isinstance(answer, Refused), pieces
        assert answer.status == status


SMALL = Limits(request_line=20, field_line=16, fields=3, head=60)


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"GET /" + b"a" * 6 + b" HTTP/1.1\r\nHost: a" + END, 0),  # a request line of 20
        (b"GET /" + b"a" * 7 + b" HTTP/1.1\r\nHost: a" + END, 414),
        (GET + b"X: " + b"a" * 13 + END, 0),  # a field line of 16
        (GET + b"X: " + b"a" * 14 + END, 431),
        (GET + b"X: " + b" " * 13 + END, 0),
        (GET + b"X: " + b" " * 14 + END, 431),
        (GET + b"X: 1\r\nX: 2" + END, 0),
        (GET + b"X: 1\r\nX: 2\r\nX: 3" + END, 431),
        (GET + b"X: aaaaaaaaaa\r\nY: aaaaaaaaaaaaa" + END, 0),  # a head of 60
        (GET + b"X: aaaaaaaaaaa\r\nY: aaaaaaaaaaaaa" + END, 431),
    ],
    ids=lambda value: f"{value!r:.90}",
)
def test_limits_are_exact_however_the_head_arrives(wire: bytes, status: int) -> None:
    for pieces in ([wire], bytewise(wire), *single_cuts(wire)):
        answer = read_head(pieces, SMALL)
        if status:
            assert isinstance(answer, Refused), pieces
            assert answer.status == status, pieces
        else:
            assert isinstance(answer, tuple), (pieces, answer)


def test_a_limit_may_be_larger_than_the_whole_head() -> None:
    limits = Limits(request_line=1 << 20, field_line=1 << 20, fields=5000, head=1 << 20)
    wire = b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 60000 + b"\r\nY: z" * 3000 + END
    for pieces in ([wire], cut_at(wire, range(0, len(wire), 1459))):
        found = read_head(pieces, limits)
        assert isinstance(found, tuple)
        assert len(found[0].fields) == 3002


# ---------------------------------------------------------------------- the parts of a head


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (b"/", "/"),
        (b"/a%20b", "/a b"),
        (b"/%C3%A9", "/\xe9"),
        (b"/%2541", "/%41"),
        (b"/%2F%2f", "///"),
        (b"/%00", "/\x00"),
        (b"/%ff", "/\ufffd"),
        (b"/%c0%af", "/\ufffd\ufffd"),
        (b"/%zz%", "/%zz%"),
        (b"/a+b", "/a+b"),
        (b"/a%3Fb?c", "/a?b"),
        (b"http://b/%41", "/A"),
        (b"/%ed%a0%80", "/\ufffd\ufffd\ufffd"),
    ],
)
def test_path_text_is_decoded_once_and_never_fails(target: bytes, text: str) -> None:
    found = read_head([b"GET " + target + b" HTTP/1.1\r\nHost: a" + END])
    assert isinstance(found, tuple)
    assert found[0].line.path_text == text
    assert found[0].line.method_text == "GET"
    assert found[0].line.version_text == "1.1"


def test_values_are_bytes_whatever_the_buffer_is() -> None:
    for kind in (bytes, bytearray):
        head = parse_head(kind(POST + b"X: " + b"y" * 400 + b"\r\nContent-Length: 5" + END), 0, Limits())
        assert head is not None
        values = [*head_values(head), *(part for field in head.fields for part in field)]
        assert not any(isinstance(value, (bytearray, memoryview)) for value in values)


def test_a_head_can_be_parsed_where_it_stands() -> None:
    buffer = bytearray(b"\r\n" + GET + b"\r\n" + POST + b"Content-Length: 2\r\n\r\nxy")
    first = parse_head(buffer, 2, Limits())
    assert first is not None
    second = parse_head(buffer, 2 + first.size, Limits())
    assert second is not None
    assert (second.method, second.content_length) == (b"POST", 2)
    assert buffer[2 + first.size + second.size :] == b"xy"


def test_messages_quote_little_of_the_peers_bytes() -> None:
    for wire in (
        b"\x1b" * 9000,
        GET + b"X\x1b" + b"y" * 5000 + b": z" + END,
        b"GET /\x1b" + b"a" * 5000 + b" HTTP/1.1" + END,
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            parse_head(wire, 0, Limits())
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


# ---------------------------------------------------------------------- what is kept from one head to the next


def read(wire: bytes) -> RequestHead:
    head = parse_head(wire, 0, Limits())
    assert head is not None
    return head


FIVE = [
    (b"Host: a", b"X: y", b"Y: z", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: x", b"Y: z", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"Y: z", b"Connection: keep-alive", b"Z: " + b"1" * 2500),
    (b"Host: a", b"X: y", b"Y: z", b"Connection: close", b"Z: 1"),
    (b"Host: a", b"X: y", b"Y: z", b"Host: a", b"Z: 1"),
    (b"Host: b", b"X: y", b"Y: z", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"Y : z", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"Y: \x00", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b" folded", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"X", b"Connection: keep-alive", b"Z: 1"),
    (b"X: y", b"Host: a", b"Y: z", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"Content-Length: 3", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"Content-Length: 4", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"X: y", b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"Z: 1"),
    (b"Host: a", b"Expect: 100-continue", b"Content-Length: 3", b"Connection: keep-alive", b"Z: 1"),
]
SECTIONS = [
    *(b"Host: a", b"Host: b", b"Host: a\r\nContent-Length: 5", b"Host: a\r\nContent-Length: 0", b"Host: a\r\nX: y"),
    b"X: y\r\nHost: a",
    *(b"Host: a\r\nTransfer-Encoding: chunked", b"Host: a\r\nConnection: close"),
    *(b"Host: a\r\nConnection: keep-alive", b"host: a"),
    *(b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 1", b"Host: a\r\nConnection: upgrade\r\nUpgrade: x"),
    *(b"\r\n".join(lines) for lines in FIVE),
    *(b"Host: a b", b"Host:", b"Host: a b\r\nConnection: keep-alive"),
    *(b"", b"Host: a\r\nContent-Length: x", b"Host: a\r\nCookie: secret", b"Host: a\r\nX: " + b"z" * 3000),
]  # fmt: skip
LINES = [
    *(b"GET / HTTP/1.1", b"GET /?a HTTP/1.1", b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"GET http://c/ HTTP/1.1"),
    *(b"HEAD / HTTP/1.1", b"GET http://a/ HTTP/1.0", b"GET / HTTP/1.2", b"GET / HTTP/2.0"),
]  # fmt: skip


def said_by(parse: Callable[..., RequestHead | None], wire: bytes, *more: Any) -> object:
    try:
        head = parse(wire, *(more or (0, Limits())))
    except RemoteProtocolError as exc:
        return type(exc), str(exc), exc.status
    return None if head is None else head_values(head)


@pytest.mark.parametrize("line", LINES)
def test_the_compiled_function_says_the_same(line: bytes) -> None:
    for section in SECTIONS:
        wire = line + b"\r\n" + section + (b"\r\n\r\n" if section else b"\r\n")
        assert said_by(parse_head, wire) == said_by(parse_head_pure, wire), section


CHANGED_LINES = [
    *(b"Host: a", b"Host: b", b"host: a", b"Host:a", b"Host : a", b"Host: a b", b"Host:"),
    *(b"Content-Length: 5", b"content-length: 0"),
    *(b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"Connection: close", b"Connection: upgrade"),
    *(b"Upgrade: x", b"Expect: 100-continue", b"Content_Length: 5", b"Cookie: s=1", b"Cookie: s=2", b"X: y", b"X:y "),
]  # fmt: skip
INSERTED = [
    *(b"\r", b"\n", b"\x00", b"\x7f", b"\x0b", b" ", b"\t", b":", b"\r\n", b"\r\n ", b"\r\n\t", b"\x85", b"\xa0", b"x")
]
CHANGES = st.one_of(
    st.tuples(st.just("line"), st.integers(0, 9), st.sampled_from(CHANGED_LINES)),
    st.tuples(st.just("insert"), st.integers(0, 200), st.sampled_from(INSERTED)),
    st.tuples(st.sampled_from(["drop", "double", "swap", "case"]), st.integers(0, 9), st.just(b"")),
    st.tuples(st.just("request line"), st.just(0), st.sampled_from(LINES)),
)


def changed(wire: bytes, change: tuple[str, int, bytes]) -> bytes:
    kind, at, value = change
    if kind == "insert":
        at %= len(wire)
        return wire[:at] + value + wire[at:]
    line, *lines = wire[:-4].split(b"\r\n")
    if kind == "request line":
        return b"\r\n".join([value, *lines]) + END
    at %= len(lines) or 1
    part = lines[at : at + 1]
    other = {"line": [value], "drop": [], "double": part * 2, "swap": part, "case": [one.swapcase() for one in part]}
    lines[at : at + 1] = other[kind]
    if kind == "swap":
        lines.append(lines.pop(at) if lines else value)
    return b"\r\n".join([line, *lines]) + END


STEERED = [
    *([], [b"Connection: keep-alive"], [b"Connection: close"], [b"Connection: upgrade", b"Upgrade: x"]),
    *([b"Content-Length: 5", b"Expect: 100-continue"], [b"Transfer-Encoding: chunked"]),
]  # fmt: skip


@settings(max_examples=500)
@given(st.sampled_from(STEERED), st.lists(st.lists(CHANGES, max_size=2), min_size=1, max_size=6), st.booleans())
def test_a_changed_head_says_the_same_to_both_functions(
    steered: list[bytes], steps: list[list[tuple[str, int, bytes]]], known: bool
) -> None:
    # Changes are made to what was accepted last, as by a client that goes on; the names are known, or are not.
    last = b"\r\n".join([LINES[0], b"Host: a", b"X: y", *steered, b"Y: z", b"Z: 1", b"A: b"]) + END
    for step in [[], *steps]:
        wire = last
        for change in step:
            wire = changed(wire, change)
        wire = wire.partition(END)[0] + END
        found = said_by(parse_head, wire)
        if not known:
            module._names.clear()
        assert found == said_by(parse_head_pure, wire)
        if isinstance(found, tuple) and isinstance(found[0], bytes):
            last = wire


@pytest.mark.parametrize("parse", [parse_head, parse_head_pure])
def test_limits_hold(parse: Callable[..., RequestHead | None]) -> None:
    wire = GET + b"X: y\r\nY: z" + END
    size = len(wire)
    exact = Limits(request_line=14, field_line=7, fields=3, head=size)
    assert parse(wire, 0, exact) is not None
    for limits in (Limits(fields=2), Limits(field_line=6), Limits(head=size - 1), Limits(request_line=13)):
        with pytest.raises(LimitExceeded):
            parse(wire, 0, limits)


def pure(wire: bytes) -> None:
    assert parse_head_pure(wire, 0, Limits()) is not None


def test_the_table_of_known_names_stays_small() -> None:
    for number in range(3 * module._NAMES_MAX):
        pure(b"GET / HTTP/1.1\r\nHost: a\r\nX-%d: y" % number + END)
        # A name is kept twice: as it came, and in lower case.
        assert len(module._names) <= module._NAMES_MAX + 1
    pure(GET + b"N" * 4000 + b": v" + END)
    assert max(map(len, module._names)) <= module._NAME_LENGTH_MAX


def test_what_is_kept_beyond_a_connection_is_names_only() -> None:
    pure(GET + b"Cookie: s3cret" + END)
    kept = [value for value in vars(module).values() if isinstance(value, dict)]
    assert b"Cookie" in module._names
    assert not any(b"s3cret" in table or b"s3cret" in table.values() for table in kept)


NAMES = (b"Host", b"host", b"X", b"Accept", b"X_Y", b"bad name", b"", b" X", b"X ", b"n\xe9")
SEPARATORS = (b": ", b":", b":  ", b": \t", b" : ", b"", b":\t ")
VALUES = (
    b"",
    b"a",
    b"a: b",
    b": ",
    b"a ",
    b"a\t",
    b"\xff",
    b"a\x00",
    b"a\rb",
    b"a\nb",
    b"\x7f",
    b"Host: b",
    b"a\x0bb",
    b" ",
)


@given(st.lists(st.tuples(*map(st.sampled_from, (NAMES, SEPARATORS, VALUES))), min_size=1, max_size=5))
def test_a_section_read_as_a_whole_is_the_section_read_line_by_line(parts: list[tuple[bytes, bytes, bytes]]) -> None:
    lines = [b"".join(part) for part in parts]
    outcomes: list[object] = []
    for read_fields in (
        lambda: module._parse_lines(b"\r\n".join(lines), lines),
        lambda: tuple(map(module._parse_field_line, lines)),
    ):
        module._names.update({b"Host": b"host", b"host": b"host", b"Accept": b"accept", b"X": b"x"})
        try:
            outcomes.append(read_fields())
        except RequestSyntaxError as exc:
            outcomes.append(str(exc))
    assert outcomes[0] == outcomes[1]


def test_a_refused_line_is_not_known_the_next_time() -> None:
    for _ in range(2):
        for line in (b"X : y", b"Host: a b", b"X: \x01", b"X"):
            with pytest.raises(RequestSyntaxError):
                parse_head(LINE + line + END, 0, Limits())


# ---------------------------------------------------------------------- trailer sections


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"A: b", [(b"a", b"b")]),
        (b"A: b\r\na:c\r\nB:", [(b"a", b"b"), (b"a", b"c"), (b"b", b"")]),
    ],
)
def test_parse_fields(block: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    assert parse_fields(block, Limits()) == fields


@table("line", dict.fromkeys(FIELD_LINES[: FIELD_LINES.index(b"Content-Length : 5")]))
def test_parse_fields_refuses(line: bytes) -> None:
    with pytest.raises(RequestSyntaxError):
        parse_fields(b"A: b\r\n" + line + b"\r\nC: d", Limits())


def test_parse_fields_has_the_limits_of_a_head() -> None:
    limits = Limits(fields=2, field_line=10)
    assert len(parse_fields(b"A: b\r\nC: ddddddd", limits)) == 2
    for block in (b"A: b\r\nC: d\r\nE: f", b"A: bbbbbbbb"):
        with pytest.raises(LimitExceeded) as caught:
            parse_fields(block, limits)
        assert caught.value.status == 431


# ---------------------------------------------------------------------- any cut, any bytes

FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            *(LINE, GET, POST, b"Host: a\r\n", b"X: y\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\x00", b":"),
            b"GET",
            *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"HTTP/1.1"),
            *(b"\t", b"/"),
        ]
    ),
    st.binary(max_size=6),
)  # fmt: skip
SOUPS = st.lists(FRAGMENTS, max_size=10).map(b"".join)


def outcome(pieces: list[bytes], limits: Limits) -> object:
    answer = read_head(pieces, limits)
    if isinstance(answer, tuple):
        return head_values(answer[0]), answer[1]
    # Which of two faults is seen first may depend on the cut; that there is one may not.
    return None if answer is None else "refused"


@given(wire=st.one_of(SOUPS, SOUPS.map(lambda soup: GET + soup), SOUPS.map(lambda soup: POST + soup)), data=st.data())
def test_any_cut_gives_the_same_answer(wire: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))
    small = Limits(request_line=18, field_line=18, fields=4, head=70)
    for limits in (Limits(), small):
        first = outcome([wire], limits)
        for pieces in (cut_at(wire, places), bytewise(wire)):
            answer = outcome(pieces, limits)
            if first is None and answer is not None:
                # Refused at a cut where nothing could mend it any more; whole, it is refused once it is complete.
                assert {outcome([wire + end], limits) for end in (b"\r\n\r\n", b"\n\r\n", b"a\r\n\r\n")} == {answer}
            else:
                assert answer == first


NAMES = st.text(alphabet=TCHAR.decode(), min_size=1, max_size=12).map(str.encode)
VALUES = st.lists(st.sampled_from(octets(TEXT)), max_size=20).map(b"".join)
PATHS = st.lists(st.sampled_from(octets(VCHAR.replace(b"#", b"").replace(b"?", b""))), max_size=20).map(b"".join)
STEERING = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}


@given(
    method=NAMES.filter(lambda name: name != b"CONNECT"),
    path=PATHS,
    query=PATHS,
    fields=st.lists(st.tuples(NAMES.filter(lambda name: name.lower() not in STEERING), VALUES), max_size=6),
    rest=st.binary(max_size=20),
)
def test_what_the_grammar_allows_is_read_back(
    method: bytes, path: bytes, query: bytes, fields: list[tuple[bytes, bytes]], rest: bytes
) -> None:
    lines = b"".join(b"%b:%b\r\n" % field for field in fields)
    wire = b"%b /%b?%b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (method, path, query, lines)
    found = read_head([wire + rest])
    assert isinstance(found, tuple)
    head, left = found
    assert (head.method, head.path, head.query, left) == (method, b"/" + path, query, rest)
    assert head.fields == ((b"host", b"h"), *((name.lower(), value.strip(b" \t")) for name, value in fields))


@pytest.mark.parametrize("start", [b"GET /", GET + b"X: ", GET], ids=["request line", "field line", "fields"])
def test_a_head_that_arrives_byte_by_byte_costs_linear_time(start: bytes) -> None:
    limits = Limits(request_line=20000, field_line=20000, fields=20000)

    def cost(size: int) -> float:
        line = b"X: y\r\n" if start == GET else b"a"
        wire = start + line * (size // len(line))
        best = float("inf")
        for _ in range(3):
            buffer = bytearray()
            begin = time.process_time()
            for index in range(len(wire)):
                buffer.append(wire[index])
                parse_head(buffer, 0, limits, index)
            best = min(best, time.process_time() - begin)
        return best

    # Four times the bytes for four times the time; it would be sixteen if every piece were compared with all before it.
    assert cost(16000) < 8 * cost(4000)
