"""Flask: one view."""

import flask

app = flask.Flask(__name__)


@app.get("/")
def hello() -> flask.Response:
    return flask.Response(b"Hello, World!", mimetype="text/plain")
