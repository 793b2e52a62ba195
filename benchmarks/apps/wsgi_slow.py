"""What slow clients ask for, and what a quick one asks for beside them."""

SMALL = [("Content-Type", "text/plain"), ("Content-Length", "5")]
PIECE = 16384
SIZE = 1 << 20


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/large":
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(SIZE))])
        return (bytes([number % 256]) * PIECE for number in range(SIZE // PIECE))
    if path == "/upload":
        size = 0
        while data := environ["wsgi.input"].read(65536):
            size += len(data)
        assert size == int(environ["CONTENT_LENGTH"])
    start_response("200 OK", SMALL)
    return [b"hello"]
