"""Values that look right to a careless reader, by the rule that they break."""

from __future__ import annotations

__all__ = [
    "CONTROLS",
    "HOSTS",
    "MALFORMED_CODINGS",
    "NOT_TCHAR",
    "NO_CHUNK_SIZE",
    "NO_HOST",
    "NO_LENGTH",
    "NO_VERSION",
    "TCHAR",
    "TEXT",
    "VCHAR",
    "WIDER_THAN_DIGITS",
]

TCHAR = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NOT_TCHAR = bytes(set(range(256)) - set(TCHAR))
VCHAR = bytes(range(0x21, 0x7F))
TEXT = b"\t " + VCHAR + bytes(range(0x80, 0x100))
CONTROLS = bytes(set(range(0x20)) - {0x09}) + b"\x7f"

# What int(), str.strip(), str.isdigit(), str.lower() and \d take besides plain digits.
WIDER_THAN_DIGITS = [
    *(b"+5", b"-5", b"-0", b"5_0", b"0x5", b"0o5", b"5.0", b"5L", b"5 5", b"5,5", b'"5"', b"5;", b"5h", b"five"),
    *(b" 5", b"5 ", b"\t5", b"5\t", b"\n5", b"5\n", b"\r5", b"5\r", b"5\r\n", b"\x0b5", b"5\x0c", b"\x1c5", b"5\x1d"),
    *(b"\x1e5", b"\x1f5", b"\x855", b"\xa05", b"5\xa0", b"\x005", b"5\x00", b"\x7f5"),
    *(text.encode() for text in ("\u0665", "\u00b2", "\uff15", "\u2075", "\U0001d7d3", "\u30005", "\u20075")),
]

# Content-Length: RFC 9110 section 8.6.
NO_LENGTH = [
    *(b"", b" ", b"abc", b"five", b"nan", b"inf", b"true", b"0x5", b"0X5", b"0b1", b"0o5", b"5h", b"f", b"1e1", b"5e0"),
    *(b"+5", b"-5", b"-0", b"+0", b"- 5", b"5-", b"5+", b"5_0", b"1_0", b"_5", b"5_", b"5.0", b"5.", b".5", b"5L"),
    b"5l",
    *(b"5 5", b"5\t5", b"5;5", b"5,5", b"5, 5", b",5", b"5,", b", 5", b"5 ,", b",", b"5,,5", b"5, 6", b'"5"', b"'5'"),
    *(b"\x0b5", b"\x0c5", b"5\x0b", b"\x1c5", b"5\x1c", b"\x1d5", b"\x1e5", b"\x1f5", b"(5)", b"[5]", b"{5}", b"5%"),
    *(b"\x855", b"5\x85", b"\xa05", b"5\xa0", b"\x005", b"5\x00", b"\r5", b"5\r", b"\n5", b"5\n", b"\x7f5", b"5;q=1"),
    *(b"\xb2", b"\xb9", b"\xbc", b"5\xb2", b"%35", b"5 bytes", b"=5", b"#5"),
    *(text.encode() for text in ("\u0665", "\u06f5", "\u0967", "\uff15", "\u2075", "\u2085", "\u2464", "\U0001d7d3")),
    *(text.encode() for text in ("\u30005", "5\u3000", "\u20095", "\ufeff5", "5\u200b", "\u20285", "\u00855")),
]  # fmt: skip

# Transfer-Encoding, the values of its field lines: RFC 9112 section 6.1.
MALFORMED_CODINGS = [
    # nothing, or chunked not once and last
    *([b""], [b","], [b" "], [b"", b""], [b", ,"], [b"chunked, chunked"], [b"chunked", b"chunked"]),
    [b"chunked,,chunked"],
    # an empty member, or an empty line beside it: a list to one reader, an unknown coding to the next
    *([b", chunked"], [b"chunked,"], [b"chunked ,"], [b",chunked"], [b"chunked", b""], [b"", b"chunked"]),
    *([b",", b"chunked", b""], [b"chunked", b","]),
    *([b"chunked, gzip"], [b"chunked", b"cow"], [b"chunked", b"identity"], [b"gzip, chunked, gzip"], [b"identity"]),
    *([b"chunked, gzip, chunked"], [b"gzip"], [b"x"], [b"xchunked"], [b"chunkedx"], [b"chunked-false"], [b"chunk"]),
    # not a token
    *([b'"chunked"'], [b'"chunked'], [b"'chunked\""], [b"chunked;q=1"], [b"chunked;"], [b"chunked; a=b"]),
    [b";chunked"],
    *([b"x chunked"], [b"chunked x"], [b"chunked\tx"], [b"chunked:"], [b":chunked"], [b"(chunked)"], [b"[chunked]"]),
    *([b"chunked=1"], [b"chunked/1"], [b"chunked\\"], [b"<chunked>"], [b"@chunked"], [b"gzip;q=1, chunked"]),
    [b'"x,chunked'],
    *([b'gzip", chunked'], [b'"a, chunked", chunked'], [b"gz ip, chunked"], [b"{}, chunked"]),
    # octets that str.strip() and str.lower() would repair
    *([bytes([octet]) + b"chunked"] for octet in b"\x00\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xa0"),
    *([b"chunked" + bytes([octet])] for octet in b"\x00\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xa0"),
    *([text.encode()] for text in ("chun\u212aed", "chunke\uff44", "\u00a0chunked", "chunked\u2003", "\ufeffchunked")),
    *([b"chun\x00ked"], [b"chunked\r"], [b"chunked\n"], [b"\nchunked"]),
]  # fmt: skip

# chunk-size [chunk-ext], without the line's end: RFC 9112 section 7.1.
NO_CHUNK_SIZE = [
    *(b"", b" ", b"g", b"xyz", b"5g", b"g5", b"5 ", b"5\t", b" 5", b"\t5", b"5 5", b"5:", b"5=a", b'"5"', b"{5}"),
    b"-1",
    *(b";a", b" ;a", b"5,a", b"5 a", b"5;a\rb", b"5;a\nb", b"5;\x00", b"5;a\x00b", b"5;\x7f", b"5;\x1f", b"5;\x0b"),
    b"5\r",
    *(b"5\x0b;a", b"5\xa0;a", b"5\x00;a", b"12345678901234567", b"00000000000000005", b"f" * 17, b"0" * 400),
    b"1" * 5000,
    *(b"5;" + b"a" * 4096, b"5" + b" " * 4096 + b";a", b"5\n", b"5;a\n", b"5;\n"),
    *(value for value in WIDER_THAN_DIGITS if value not in {b"5;", b"5\r\n"}),
]  # fmt: skip

# uri-host [":" port]: RFC 9110 section 7.2, RFC 3986 section 3.2.2.
HOSTS = [
    *(b"a", b"a.test", b"a.test:80", b"a.test:", b"a.test:0", b"a_b.test", b"a-b", b"A.TEST", b"a.", b"1.2.3.4"),
    *(b"xn--bcher-kva.test", b"a%20b", b"%C3%A9", b"a~b", b"a!$&'()*+;=b", b"localhost:65535", b"a:99999"),
    *(b"[::1]", b"[::1]:8080", b"[::]", b"[2001:DB8::1]", b"[1:2:3:4:5:6:7:8]", b"[::ffff:1.2.3.4]"),
    *(b"[1::8]", b"[1:2:3:4:5:6:1.2.3.4]", b"[1:2:3:4:5:6:7::]", b"[::2:3:4:5:6:7:8]", b"[64:ff9b::255.0.0.1]"),
    *(b"[1:2:3::6:7:8]", b"[1::3:4:5:6:7:8]", b"[1:2:3:4:5:6::8]", b"[1::]", b"[::1.2.3.4]:", b"[1:2:3:4:5::1.2.3.4]"),
    *(b"[v1.a]", b"[vF.a:b]", b"[V0.~!$&'()*+;=]:1"),
]
NO_HOST = [
    *(b"", b":", b":80", b" ", b"a b", b"a\tb", b"a\x00", b"a\x7f", b"a\x1cb", b"a\x0bb"),
    *(b"a/", b"a/evil", b"/a", b"http://a", b"user@a", b"@a", b"a@", b"a?x", b"a#x", b"a\\b", b'"a"', b"a,b", b","),
    *(b"<a>", b"a|b", b"{a}", b"^", b"`", b"\xe9.test", b"\xc3\xa9.test", b"a\xa0", b"\x85a", b"\xa0a", b"a;@b"),
    *(b"a:abc", b"a:8a", b"a:-1", b"a:+1", b"a: 80", b"a :80", b"a:80:80", b"a::", b"::1", b"a:123456", b"a:0x50"),
    *(b"a:\xb2", b"a:\xd9\xa5", b"a%", b"a%2", b"a%zz", b"a%2g", b"%", b"a:80/", b"a:8_0", b"a:8,0", b"a, b"),
    b"a:80, b",
    *(b"[", b"]", b"[]", b"[::1", b"::1]", b"[::1]a", b"a[::1]", b"[[::1]]"),
    *(b"[::1]]", b"[::1]:a", b"[a]", b"[::1]]:1"),
    *(b"[::g]", b"[:]", b"[:::]", b"[.]", b"[..]", b"[1.2.3.4]", b"[1]", b"[1:2]", b"[::1::]", b"[12345::]"),
    b"[1:::8]",
    *(b"[1:2:3:4:5:6:7]", b"[1:2:3:4:5:6:7:8:9]", b"[1:2:3:4:5:6:7:8::]", b"[::1.2.3]", b"[::1.2.3.256]", b"[:1]"),
    b"[1:]",
    *(b"[::1%25eth0]", b"[fe80::1%eth0]", b"[v.a]", b"[v1.]", b"[v1a]", b"[vg.a]", b"[v1.a,b]", b"[v1.a@b]"),
    b"[::1/64]",
    *(b"[::1 ]", b"[ ::1]", b"[::1\x00]", b"[::01.2.3.4]", b"[1:2:3:4:5:6:7:1.2.3.4]", b"[::1.2.3.4:1]"),
    b"[1.2.3.4::]",
]  # fmt: skip

# HTTP-version: RFC 9112 section 2.3.
NO_VERSION = [
    *(b"", b"HTTP", b"HTTP/", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/1.10", b"HTTP/1.01", b"HTTP/11.1"),
    b"HTTP/01.1",
    *(b"http/1.1", b"Http/1.1", b"hTTP/1.1", b"HTTPS/1.1", b"HTTP/1,1", b"HTTP/1:1", b"HTTP/1-1", b"HTTP/+1.1"),
    b"HTTP/-1.1",
    *(b"HTTP/1.+1", b"HTTP/1._", b"HTTP/1.1a", b"HTTP/a.1", b"HTTP/1.a", b"HTTP/0x1.1", b"HTTP\\1.1", b"HTTP1.1"),
    b"HTP/1.1",
    *(b"HTTP/1.1.1", b"HTTP//1.1", b"XHTTP/1.1", b"HTTP/1.1HTTP/1.1", b"RTSP/1.0", b"SIP/2.0", b"ICAP/1.0", b"1.1"),
    b"/1.1",
    *(b"HTTP/1.\xb9", b"HTTP/\xb9.1", b"HTTP/1\xb71", b"HTTP/1.1\xa0", b"\xa0HTTP/1.1", "HTTP/1.\u0661".encode()),
    *(b"HTTP/1.1\x00", b"HTTP/1\x00.1", b"HTTP/1.1\x0b", b"HTTP/1.1\x1c", b"HTTP/1.1\t", b"\tHTTP/1.1"),
    b"HTTP/1.1\x85",
    "HTTP/\uff11.\uff11".encode(),
]  # fmt: skip
