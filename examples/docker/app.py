"""The application of the image: ``docker build -t shop examples/docker``."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "hello from a container\n"
