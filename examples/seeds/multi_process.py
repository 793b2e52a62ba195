"""``bind`` and ``start``: simple multi-process.

Run:  python examples/seeds/multi_process.py 8888
Ask:  curl http://127.0.0.1:8888/
"""

import sys

from single_process import app

from bridge.core.httpserver import HTTPServer
from bridge.core.ioloop import IOLoop

if __name__ == "__main__":
    server = HTTPServer(app)
    server.bind(int(sys.argv[1]))
    server.start(0)  # Forks multiple sub-processes
    IOLoop.current().start()
