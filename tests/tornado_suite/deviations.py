"""The tests of Tornado's suite that bridge fails on purpose, each with the rule that it follows instead."""

_SERVER = "tornado.test.httpserver_test."

#: Test id -> why.
DEVIATIONS = {
    # A refusal is framed, so that clients need not guess: Content-Length and Connection: close (RFC 9112 section 6.3
    # and 9.6). These three compare every byte of Tornado's answer, which has no fields at all.
    _SERVER + "UnixSocketTestFile.test_unix_socket_bad_request": "RFC 9112 6.3: a framed 400",
    _SERVER + "UnixSocketTestAbstract.test_unix_socket_bad_request": "RFC 9112 6.3: a framed 400",
    _SERVER + "BodyLimitsTest.test_body_size_override_reset": "RFC 9112 6.3: a framed 413",
    # Content that is too large is not malformed: 413 (Content Too Large), where Tornado says 400.
    _SERVER + "BodyLimitsTest.test_large_body_buffered": "RFC 9110 15.5.14: 413",
    _SERVER + "BodyLimitsTest.test_large_body_buffered_chunked": "RFC 9110 15.5.14: 413",
    _SERVER + "BodyLimitsTest.test_large_body_streaming": "RFC 9110 15.5.14: 413",
    _SERVER + "BodyLimitsTest.test_large_body_streaming_chunked": "RFC 9110 15.5.14: 413",
    _SERVER + "GzipMemoryTest.test_gzip_bomb": "RFC 9110 15.5.14: 413",
    # Lines end with CRLF; a lone LF, which a recipient MAY take for one, lets two readers see two messages.
    _SERVER + "HTTPConnectionTest.test_newlines": "RFC 9112 2.2: LF is no line end",
    _SERVER + "HTTPServerRawTest.test_chunked_request_body_duplicate_header": "RFC 9112 2.2: LF is no line end",
    _SERVER + "HTTPServerRawTest.test_chunked_request_body_transfer_encoding_and_content_length": (
        "RFC 9112 2.2: LF is no line end"
    ),
    _SERVER
    + "HTTPServerRawTest.test_chunked_request_body_unsupported_transfer_encoding": "RFC 9112 2.2: LF is no line end",
    # HTTP/1.0 has no transfer codings: such a message is faulty, and its connection must not go on.
    _SERVER + "KeepAliveTest.test_keepalive_chunked": "RFC 9112 6.1: Transfer-Encoding in HTTP/1.0",
    # The test wants a response with Transfer-Encoding and Content-Length, which a sender must not send.
    "tornado.test.simple_httpclient_test.ChunkedWithContentLengthTest.test_chunked_with_content_length": (
        "RFC 9112 6.2: no Content-Length beside Transfer-Encoding"
    ),
}
