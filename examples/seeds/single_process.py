"""``listen``: simple single-process.

Run:  python examples/seeds/single_process.py 8888
Ask:  curl http://127.0.0.1:8888/
"""

import os
import sys

from bridge.core.httpserver import HTTPServer
from bridge.core.httputil import HTTPHeaders, ResponseStartLine
from bridge.core.ioloop import IOLoop


def app(request):
    content = b"process %d\n" % os.getpid()
    headers = HTTPHeaders({"Content-Length": str(len(content))})
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, content)
    request.connection.finish()


if __name__ == "__main__":
    server = HTTPServer(app)
    server.listen(int(sys.argv[1]))
    IOLoop.current().start()
