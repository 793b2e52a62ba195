"""Flask: one view, for one path or for every one."""

import flask

app = flask.Flask(__name__)
every_path = flask.Flask(__name__, static_folder=None)  # which would take the paths below /static


@app.get("/")
def hello() -> flask.Response:
    return flask.Response(b"Hello, World!", mimetype="text/plain")


@every_path.route("/<path:name>", methods=["GET", "POST"])
def hello_everywhere(name: str) -> flask.Response:
    """Take the content, where there is some, and answer."""
    if flask.request.method == "POST":
        flask.request.get_data()
    return flask.Response(b"Hello, World!", mimetype="text/plain")
