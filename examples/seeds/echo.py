"""The sample of 3.1: a callable that writes the response exactly as it will appear on the wire.

Run:  python examples/seeds/echo.py 8888
Ask:  curl http://127.0.0.1:8888/anything
"""

import sys

import bridge.core.httpserver
import bridge.core.ioloop


def handle_request(request):
    message = "You requested %s\n" % request.uri
    request.write("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(message), message))
    request.finish()


if __name__ == "__main__":
    http_server = bridge.core.httpserver.HTTPServer(handle_request)
    http_server.listen(int(sys.argv[1]))
    bridge.core.ioloop.IOLoop.instance().start()
