"""Client certificates: the sample of 3.1. The answer is the subject of the client's certificate.

Run:  python examples/seeds/client_certificates.py 8888 DIRECTORY
Ask:  curl -k --cert CLIENT.crt --key CLIENT.key https://127.0.0.1:8888/

DIRECTORY holds foo.crt, foo.key and cacert.crt.
"""

import os
import ssl
import sys

from bridge.core.httpserver import HTTPServer
from bridge.core.ioloop import IOLoop


def app(request):
    certificate = request.get_ssl_certificate()
    message = "%s, %d bytes\n" % (certificate["subject"], len(request.get_ssl_certificate(binary_form=True)))
    request.write("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(message), message))
    request.finish()


if __name__ == "__main__":
    port, data_dir = sys.argv[1:]
    server = HTTPServer(
        app,
        ssl_options=dict(
            certfile=os.path.join(data_dir, "foo.crt"),
            keyfile=os.path.join(data_dir, "foo.key"),
            cert_reqs=ssl.CERT_REQUIRED,
            ca_certs=os.path.join(data_dir, "cacert.crt"),
        ),
    )
    server.listen(int(port))
    IOLoop.instance().start()
