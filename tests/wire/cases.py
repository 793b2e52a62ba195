"""What clients send and what they must get, as bytes; replayed on a fake transport and on real sockets.

The server hosts ``support.echo.Echo``. A case is named for its rule; the section is of RFC 9112 where nothing else is
said.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.hostile import MALFORMED_CODINGS, NO_CHUNK_SIZE, NO_HOST, NO_LENGTH, NO_VERSION

__all__ = ["CASES", "Case"]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LINE = b"GET / HTTP/1.1\r\n"
HEAD = LINE + b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
ECHO = b"GET /|"


@dataclass(frozen=True)
class Case:
    """One connection.

    Attributes:
        name: The rule.
        wire: What is sent.
        answers: Status and content of every response; content None for any.
        open: The connection can go on afterwards.
        half_close: The client closes its sending side behind *wire*.
        interim: Status codes of the interim responses in front of the first response.
        never: What the responses must not have in them.
    """

    name: str
    wire: bytes
    answers: tuple[tuple[int, bytes | None], ...]
    open: bool = True
    half_close: bool = False
    interim: tuple[int, ...] = ()
    never: tuple[bytes, ...] = (b"/smuggled", b"Injected", b"Traceback", b"Error: ")
    methods: tuple[str, ...] = field(default=())


def good(name: str, wire: bytes, *contents: bytes, **more: object) -> Case:
    return Case(name, wire, tuple((200, content) for content in contents), **more)  # type: ignore[arg-type]


def bad(name: str, wire: bytes, status: int = 400, before: tuple[tuple[int, bytes | None], ...] = ()) -> Case:
    """A refusal: one response that closes, and nothing of what follows is a request."""
    return Case(name, wire + SMUGGLED, (*before, (status, None)), open=False)


def named(rule: str, value: object) -> str:
    return f"{rule} {value!r:.50}"


ACCEPTED = [
    good("a request", GET, ECHO),
    good("names in any case, white space around values", LINE + b"hOSt: \t a \t\r\nX:\r\n\r\n", ECHO),
    good("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", ECHO, open=False),
    good("HTTP/1.0 that asks to stay", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ECHO),
    good("a higher minor version is served as 1.1 (RFC 9110 2.5)", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", ECHO),
    good("one empty line in front (2.2)", b"\r\n" + GET, ECHO),
    good("four empty lines in front (2.2)", b"\r\n" * 4 + GET, ECHO),
    good("an empty line behind content (2.2)", POST + b"Content-Length: 2\r\n\r\nhi\r\n" + NEXT, b"POST /|hi",
        b"GET /next|"),
    good("content by length (6.2)", POST + b"Content-Length: 5\r\n\r\nhello", b"POST /|hello"),
    good("a length with leading zeros (RFC 9110 8.6)", POST + b"Content-Length: 0005\r\n\r\nhello", b"POST /|hello"),
    good("content of a GET is content (RFC 9110 9.3.1)", HEAD + b"Content-Length: 5\r\n\r\nhello" + NEXT,
        b"GET /|hello", b"GET /next|"),
    good("content that looks like a request", POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED + NEXT,
         b"POST /|" + SMUGGLED, b"GET /next|", never=(b"HTTP/1.1 500",)),
    good("no framing means no content (6.3)", POST + b"\r\n" + NEXT, b"POST /|", b"GET /next|"),
    good("chunks (7.1)", CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" + NEXT, b"POST /|hello world",
        b"GET /next|"),
    good("chunk sizes in any case, with zeros (7.1)", CHUNKED + b"000A\r\n0123456789\r\n00\r\n\r\n",
        b"POST /|0123456789"),
    good("extensions are ignored (7.1.1)", CHUNKED + b'5;a=b;c="d;e"\r\nhello\r\n0;x\r\n\r\n', b"POST /|hello"),
    good("chunked in any case (7)", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", b"POST /|"),
    good("trailers are kept apart (7.1.2)", CHUNKED.replace(b"POST /",
        b"POST /trailers") + b"0\r\nX-T: v\r\nContent-Length: 9\r\n\r\n" + NEXT,
         b"x-t=v", b"GET /next|"),
    good("trailers are not fields (7.1.2)", CHUNKED.replace(b"POST /", b"POST /fields") + b"0\r\nX-T: v\r\n\r\n",
         b"host=a; transfer-encoding=chunked"),
    good("pipelining in order (9.3.2)", GET + POST + b"Content-Length: 2\r\n\r\nhi" + NEXT, ECHO, b"POST /|hi",
        b"GET /next|"),
    good("a hundred at once (9.3.2)", GET * 100, *[ECHO] * 100),
    good("close is obeyed (9.6)", HEAD + b"Connection: close\r\n\r\n", ECHO, open=False),
    good("close in a list (9.6)", HEAD + b"Connection: keep-alive, Close\r\n\r\n" + SMUGGLED, ECHO, open=False),
    good("close in a second line (9.6)", HEAD + b"Connection: keep-alive\r\nConnection: close\r\n\r\n", ECHO,
        open=False),
    good("absolute-form, its authority wins (3.2.2)", b"GET http://b/fields?q HTTP/1.1\r\nHost: a\r\n\r\n", b"host=b"),
    good("asterisk-form (3.2.4)", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS *|"),
    good("two slashes are a path (3.2.1)", b"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", b"GET //b/c|"),
    good("the raw path is kept", b"GET /a%2Fb%00%zz/../%41?x=%20 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a%2Fb%00%zz/../%41?x=%20|"),
    good("unknown methods", b"FROB-2 / HTTP/1.1\r\nHost: a\r\n\r\n", b"FROB-2 /|"),
    good("8-bit octets in values (RFC 9110 5.5)", b"GET /fields HTTP/1.1\r\nHost: a\r\nX: caf\xe9\r\n\r\n",
        b"host=a; x=caf\xe9"),
    good("names with underscores are others",
        POST + b"Content_Length: 46\r\nTransfer_Encoding: chunked\r\n\r\n" + NEXT, b"POST /|", b"GET /next|"),
    good("a large value", HEAD + b"X: " + b"a" * 8000 + b"\r\n\r\n", ECHO),
    good("many fields", HEAD + b"X: y\r\n" * 99 + b"\r\n", ECHO),
    good("a response in parts", b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT, b"GET /parts|", b"GET /next|"),
    good("a response in parts to HTTP/1.0 ends with the connection",
        b"GET /parts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         b"GET /parts|", open=False),
    good("interim responses (RFC 9110 15.2)", b"GET /interim HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /interim|",
        interim=(103,)),
    good("no interim responses to HTTP/1.0 (RFC 9110 15.2)", b"GET /interim HTTP/1.0\r\n\r\n", b"GET /interim|",
        open=False),
    good("Upgrade that nobody takes is ignored (RFC 9110 7.8)",
         HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + NEXT,
             ECHO, b"GET /next|"),
    Case("HEAD has no content (RFC 9110 9.3.2)", b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT, ((200, b""), (200,
        b"GET /next|")),
         methods=("HEAD", "GET")),
    Case("204 has no content (RFC 9110 15.3.5)", b"GET /204 HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT, ((204, b""), (200,
        b"GET /next|"))),
    Case("304 has no content (RFC 9110 15.4.5)", b"GET /304 HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT, ((304, b""), (200,
        b"GET /next|"))),
    # Expect (RFC 9110 section 10.1.1)
    good("100 when the application reads", POST + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n" + NEXT,
        b"POST /|", b"GET /next|"),
    good("no 100 to HTTP/1.0", b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        b"POST /|hello", open=False),
    good("an unknown expectation is ignored", POST + b"Content-Length: 5\r\nExpect: 200-ok\r\n\r\nhello",
        b"POST /|hello"),
    good("no 100 to who sends without waiting", POST.replace(b"/", b"/silent",
        1) + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + NEXT,
         b"POST /silent|hello", b"GET /next|"),
    # content that nobody reads (section 9.3)
    good("a little unread content is dropped",
        b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED + NEXT,
         b"POST /early|", b"GET /next|"),
    good("much unread content ends the connection",
        b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + SMUGGLED,
         b"POST /early|", open=False),
    good("unread chunks end the connection",
        b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
         b"POST /early|", open=False),
    good("unread content of who expects ends the connection",
         b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n" + SMUGGLED,
             b"POST /early|", open=False),
    # half-closed clients (section 9.6)
    good("a half-closed client is answered", GET, ECHO, open=False, half_close=True),
    good("all requests of a half-closed client are answered", GET + POST + b"Content-Length: 2\r\n\r\nhi" + NEXT,
         ECHO, b"POST /|hi", b"GET /next|", open=False, half_close=True),
    good("a half-closed client gets a response in parts", b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /parts|",
        open=False, half_close=True),
    # incomplete requests (section 8): no answer, and nobody is told of a request
    *(
        good(f"the end comes {where}", wire, open=False, half_close=True)
        for where, wire in [
            ("at once", b""),
            ("behind an empty line", b"\r\n"),
            ("in the request line", b"GET / HT"),
            ("in the fields", HEAD),
            ("before the content", POST + b"Content-Length: 5\r\n\r\n"),
            ("in the content", POST + b"Content-Length: 5\r\n\r\nhell"),
            ("in a chunk size", CHUNKED + b"5"),
            ("in a chunk", CHUNKED + b"5\r\nhel"),
            ("behind a chunk", CHUNKED + b"5\r\nhello\r\n"),
            ("in the trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n"),
            ("before the last line end", CHUNKED + b"5\r\nhello\r\n0\r\n\r"),
        ]
    ),
    good("the end comes in the second request", GET + b"GET /smug", ECHO, open=False, half_close=True),
    # applications that fail, and what the client sees
    Case("a failure before the response", b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, ((500, None),),
        open=False),
    Case("a failure in the response", b"GET /fail-later HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, ((200, b"part"),),
        open=False),
    Case("a response shorter than its length", b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, ((200,
        b"12345"),), open=False),
    Case("a response longer than its length", b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, ((200, b"123"),),
        open=False),
    Case("a response that would be split", b"GET /inject HTTP/1.1\r\nHost: a\r\n\r\n", ((500, None),), open=False),
]  # fmt: skip

REFUSED = [
    *(bad(named("Content-Length (RFC 9110 8.6)", v),
        POST + b"Content-Length: " + v + b"\r\n\r\nhello") for v in NO_LENGTH),
    bad("two lengths that differ (6.3)", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    bad("two lengths, one hides a request (6.3)", POST + b"Content-Length: 0\r\nContent-Length: 46\r\n\r\n"),
    bad("two equal lengths (6.3)", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    bad("a length of 100 000 digits", POST + b"Content-Length: " + b"9" * 100000 + b"\r\n\r\n", 431),
    bad("a length over 2^64 (RFC 9110 8.6)", POST + b"Content-Length: 18446744073709551621\r\n\r\nhello", 413),
    bad("white space before the colon of a length (5.1)", POST + b"Content-Length : 5\r\n\r\nhello"),
    bad("a folded length (5.2)", POST + b"Content-Length:\r\n 5\r\n\r\nhello"),
    *(
        bad(named("Transfer-Encoding (6.1)", v),
            POST + b"".join(b"Transfer-Encoding: " + c + b"\r\n" for c in v) + b"\r\n0\r\n\r\n")
        for v in MALFORMED_CODINGS
    ),
    bad("CL.TE (6.1, 6.3)", POST + b"Content-Length: 51\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    bad("TE.CL (6.1, 6.3)", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2e\r\n"),
    bad("a length beside a bad coding (6.3)", POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello"),
    bad("chunked in HTTP/1.0 (6.1)", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    bad("chunked and a length in HTTP/1.0 that stays (6.1)",
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 51\r\n\r\n"),
    bad("white space before the colon of a coding (5.1)",
        POST + b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello"),
    *(bad(named("chunk size (7.1)", v), CHUNKED + v + b"\r\nhello\r\n0\r\n\r\n") for v in dict.fromkeys(NO_CHUNK_SIZE)),
    *(
        bad(named("end of a chunk (7.1)", v), CHUNKED + b"5\r\nhello" + v + b"0\r\n\r\n")
        for v in (b"\n", b"\r", b"", b"XX", b"\r\r", b"\n\n", b"\n\r", b"  ", b"\x00\x00", b"\r\r\n", b"0\r\n")
    ),
    bad("a chunk size that wraps around (7.1)", CHUNKED + b"fffffffffffffffe\r\nhello\r\n0\r\n\r\n", 413),
    bad("extensions of one line without end (7.1.1)", CHUNKED + b"5;" + b"a" * 70000 + b"\r\nhello\r\n0\r\n\r\n"),
    bad("many extensions (7.1.1)", CHUNKED + (b"1;" + b"e" * 100 + b"\r\na\r\n") * 1000 + b"0\r\n\r\n", 413),
    bad("a request line as trailer (7.1.2)", CHUNKED + b"0\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("a folded trailer (5.2)", CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n"),
    bad("a trailer that ends with LF (2.2)", CHUNKED + b"0\r\nX: a\n\r\n"),
    bad("trailers without end", CHUNKED + b"0\r\n" + b"X-T: aaaaaaaaaaaaaaaa\r\n" * 5000, 431),
    *(bad(named("Host (3.2)", v), LINE + b"Host: " + v + b"\r\n\r\n") for v in NO_HOST),
    bad("no Host (3.2)", LINE + b"X: y\r\n\r\n"),
    bad("two Hosts (3.2)", HEAD + b"Host: b\r\n\r\n"),
    bad("two equal Hosts (3.2)", HEAD + b"Host: a\r\n\r\n"),
    bad("two Hosts beside absolute-form (3.2)", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    *(bad(named("version (2.3)", v), b"GET / " + v + b"\r\nHost: a\r\n\r\n") for v in NO_VERSION),
    bad("another major version (RFC 9110 15.6.6)", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    bad("the preface of HTTP/2 (RFC 9113 3.4)", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 505),
    *(
        bad(named("request line (3)", line), line + b"\r\nHost: a\r\n\r\n")
        for line in (
            b"GET /", b"GET", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ",
                b"GET\t/ HTTP/1.1",
            b"GET / HTTP/1.1 x", b"GET /a b HTTP/1.1", b"GET\xa0/\xa0HTTP/1.1", b"GET\x0b/ HTTP/1.1",
                b"GE(T / HTTP/1.1", b"G\x00T / HTTP/1.1",
            b'"GET" / HTTP/1.1', b"GET /a#b HTTP/1.1", b"GET /\xe9 HTTP/1.1", b"GET /\x7f HTTP/1.1",
                b"GET /\x00 HTTP/1.1",
            b"GET foo HTTP/1.1", b"GET * HTTP/1.1", b"GET :80/x HTTP/1.1", b"GET ftp://a/ HTTP/1.1",
                b"GET http:///x HTTP/1.1",
            b"GET http://u@a/ HTTP/1.1", b"CONNECT /x HTTP/1.1",
        )
    ),
    bad("CONNECT (RFC 9110 9.3.6)", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    *(
        bad(named("field line (5)", line), HEAD + line + b"\r\n\r\n")
        for line in (
            b"foo", b": v", b"X : v", b"X\t: v", b" X: v", b"X Y: v", b"X[: v", b"X/: v", b"X@: v", b"X=: v",
                b"X\x7f: v", b"X\xe9: v",
            b"X\x00: v", b"X(: v", b'X": v', b"X: a\r\n b", b"X: a\x00b", b"X: a\x01b", b"X: a\x7fb", b"X: a\x0bb",
                b"X: a\x1bb",
        )
    ),
    *(
        bad(named("line end (2.2)", wire), wire)
        for wire in (
            b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\nHost: a\r\n\r\n", HEAD + b"X: a\nY: b\r\n\r\n",
                HEAD + b"X: a\rY: b\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", HEAD + b"\n", HEAD + b"\r\r\n",
                HEAD + b"X: y\r\rTransfer-Encoding: chunked\r\n\r\n",
            b"\n" + GET, b"\r" + GET, b"\r\n" * 5 + GET, b" " + GET, b"\x00" + GET, LINE + b" Host: a\r\n\r\n",
        )
    ),
    *(
        bad(named("another protocol", wire), wire)
        for wire in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00\x00\x00\x00",
                b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", b"SSH-2.0-x\r\n\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"{}\r\n\r\n", b"\xff\xd8\xff",
        )
    ),
    bad("a request line of 9000 bytes", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    bad("a request line without end", b"GET /" + b"a" * 200000, 414),
    bad("a method without end", b"A" * 200000, 414),
    bad("a field line of 9000 bytes", HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431),
    bad("a field line without end", HEAD + b"X: " + b"a" * 200000, 431),
    bad("a name without end", HEAD + b"a" * 200000, 431),
    bad("10 000 fields", HEAD + b"X: y\r\n" * 10000 + b"\r\n", 431),
    bad("fields without end", HEAD + b"X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 5000, 431),
    bad("bad framing is no reason for a 100 (RFC 9110 10.1.1)",
        POST + b"Content-Length: abc\r\nExpect: 100-continue\r\n\r\n"),
    bad("a bad request behind a good one", GET + b"BAD\r\n\r\n", before=((200, ECHO),)),
    bad("bad chunks behind a good request", GET + CHUNKED + b"x\r\n", before=((200, ECHO),)),
]  # fmt: skip

CASES = [*ACCEPTED, *REFUSED]
