"""A Flask application: a page, a streamed download, an upload that is read in pieces.

Run:  bridge run flask_app:app --app-dir examples
Ask:  curl http://127.0.0.1:8000/  and  /stream  and  curl -T FILE http://127.0.0.1:8000/upload
"""

import hashlib
import time
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/")
def page() -> str:
    return "<!doctype html><title>bridge</title><h1>Hello from Flask</h1><p>Served by bridge.</p>\n"


@app.get("/stream")
def stream() -> Response:
    def lines() -> Iterator[str]:
        for number in range(5):
            yield f"line {number}\n"
            time.sleep(0.1)  # each line reaches the client at once: curl -N shows it

    return Response(lines(), mimetype="text/plain")


@app.route("/upload", methods=["POST", "PUT"])
def upload() -> Response:
    digest, size = hashlib.sha256(), 0
    while piece := request.stream.read(65536):
        digest.update(piece)
        size += len(piece)
    return jsonify(size=size, sha256=digest.hexdigest())
