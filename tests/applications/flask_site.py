"""Flask at the root."""

from flask import Flask, request, url_for

app = Flask(__name__)


@app.route("/<path:name>")
def page(name: str) -> str:
    return f"flask {request.script_root}|{request.path}|{url_for('page', name='x')}"
