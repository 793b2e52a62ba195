"""What HTTPServerRequest says, as JSON."""

import json

from bridge.core.httputil import HTTPHeaders, ResponseStartLine


def app(request):
    context = request.connection.context
    seen = {
        "remote_ip": request.remote_ip,
        "protocol": request.protocol,
        "host": request.host,
        "prefix": context.prefix,
        "forwarded": request.headers.get("X-Forwarded-For", ""),
    }
    content = json.dumps(seen).encode()
    fields = HTTPHeaders({"Content-Length": str(len(content))})
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), fields, content)
    request.connection.finish()
