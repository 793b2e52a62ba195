"""TLS with a context, the sample of 4.x, and with a dictionary of options, the sample of 3.1.

Run:  python examples/seeds/tls.py 8888 DIRECTORY context    (or: dictionary)
Ask:  curl -k https://127.0.0.1:8888/

DIRECTORY holds mydomain.crt and mydomain.key.
"""

import os
import ssl
import sys

from single_process import app

from bridge.core.httpserver import HTTPServer
from bridge.core.ioloop import IOLoop

if __name__ == "__main__":
    port, data_dir, form = sys.argv[1:]
    if form == "context":
        ssl_ctx = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ssl_ctx.load_cert_chain(os.path.join(data_dir, "mydomain.crt"), os.path.join(data_dir, "mydomain.key"))
        server = HTTPServer(app, ssl_options=ssl_ctx)
    else:
        server = HTTPServer(
            app,
            ssl_options={
                "certfile": os.path.join(data_dir, "mydomain.crt"),
                "keyfile": os.path.join(data_dir, "mydomain.key"),
            },
        )
    server.listen(int(port))
    IOLoop.current().start()
