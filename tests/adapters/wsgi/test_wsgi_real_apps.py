"""Applications of other people, unmodified, behind ``bridge run``."""

from __future__ import annotations

import http.client
import http.cookiejar
import importlib.util
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT

LIMIT = 20

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DJANGO = """
import io
import os
from pathlib import Path

import django
from django.conf import settings

BASE = Path(__file__).parent
settings.configure(
    DEBUG=False, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, STATIC_URL="/static/",
    STATIC_ROOT=BASE / "static", DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE / "db"}},
    INSTALLED_APPS=["django.contrib." + name for name in
                    ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "whitenoise.middleware.WhiteNoiseMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                "OPTIONS": {"context_processors": ["django.template.context_processors.request",
                                                   "django.contrib.auth.context_processors.auth",
                                                   "django.contrib.messages.context_processors.messages"]}}],
)
django.setup()

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

def prepare():
    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    User.objects.create_superuser("root", "", "secret")


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    return HttpResponse(f"{request.POST['name']} {file.size} {sum(map(sum, file.chunks())) % 1000}")


def stream(request):
    return StreamingHttpResponse(b"%d," % number for number in range(5000))


def download(request):
    return FileResponse(open(BASE / "large", "rb"), as_attachment=True)


def part(request):
    start, _, end = request.headers["Range"].removeprefix("bytes=").partition("-")
    start, end, size = int(start), int(end), os.path.getsize(BASE / "large")
    file = open(BASE / "large", "rb")
    file.seek(start)
    response = FileResponse(file, status=206, content_type="text/plain")
    response["Content-Range"] = f"bytes {start}-{end}/{size}"
    response["Content-Length"] = str(end - start + 1)  # else it is what is left of the file
    return response


def in_memory(request):
    return FileResponse(io.BytesIO(b"in memory"), content_type="text/plain")


def users(request):
    return HttpResponse(str(USERS))


urlpatterns = [path("admin/", admin.site.urls), path("upload", upload), path("stream", stream),
               path("download", download), path("part", part), path("in-memory", in_memory), path("users", users)]
# Django refuses this beside a running event loop.
USERS = User.objects.count() if (BASE / "db").exists() else None
(BASE / "large").write_bytes(bytes(range(256)) * 8000)
application = get_wsgi_application()
"""

FLASK = """
import hashlib
from pathlib import Path

from flask import Flask, Response, request, send_file, stream_with_context

app = Flask(__name__)


@app.post("/upload")
def upload():
    file = request.files["file"]
    return {"name": request.form["name"], "digest": hashlib.sha256(file.read()).hexdigest()}


@app.put("/raw")
def raw():
    digest, size = hashlib.sha256(), 0
    while data := request.stream.read(10000):
        digest.update(data)
        size += len(data)
    return {"size": size, "digest": digest.hexdigest()}


@app.get("/stream")
def stream():
    @stream_with_context
    def lines():
        for number in range(3000):
            yield f"{request.args['word']} {number}\\n"
    return Response(lines(), mimetype="text/plain")


@app.get("/file")
def file():
    return send_file(Path(__file__).parent / "large", mimetype="text/plain", conditional=True)
"""

MOTO = """
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

app = DomainDispatcherApplication(create_backend_app)
"""

PYPISERVER = """
from pathlib import Path

import pypiserver

root = Path(__file__).parent / "packages"
root.mkdir()
app = pypiserver.app(roots=[str(root)], authenticate=[], password_file=".", disable_fallback=True)
"""


def needs(package: str) -> None:
    """Skip the test where *package* is missing, without importing it: some change what later tests import."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@contextmanager
def running(directory: Path, target: str, *options: str) -> Iterator[str]:
    """Run an application; give its address. It must stop cleanly, without a word of complaint."""
    command = [sys.executable, "-m", "bridge", "run", target, "--app-dir", str(directory), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-access-log", *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        seen = []
        for line in process.stderr:
            seen.append(line)
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found is not None:
                break
        else:
            pytest.fail("".join(seen))
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 0, rest
    assert "breaks PEP 3333" not in rest
    assert rest.count("Traceback") == 0, rest


def multipart(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + name.encode() + b"\r\n--b\r\n"
        b'Content-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    return body, {"Content-Type": "multipart/form-data; boundary=b"}


class Browser:
    """Keeps cookies."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def open(self, path: str, data: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.opener.open(urllib.request.Request(self.base + path, data, named), timeout=LIMIT)

    def text(self, path: str, data: bytes | None = None, **headers: str) -> str:
        with self.open(path, data, **headers) as answer:
            return answer.read().decode()


@pytest.mark.parametrize("options", [(), ("--wsgi-buffer-requests", "off"), ("--threads", "1")], ids=" ".join)
def test_django(tmp_path: Path, options: tuple[str, ...]) -> None:
    needs("django")
    needs("whitenoise")
    (tmp_path / "site_of_test.py").write_text(DJANGO)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import site_of_test; site_of_test.prepare()"],
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    with running(tmp_path, "site_of_test:application", *options) as base:
        browser = Browser(base)
        page = browser.text("/admin/login/")
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)
        assert token is not None
        form = {"username": "root", "password": "secret", "csrfmiddlewaretoken": token[1], "next": "/admin/"}
        page = browser.text("/admin/login/", urllib.parse.urlencode(form).encode(), Referer=base + "/admin/login/")
        assert "Site administration" in page
        assert "Select user to change" in browser.text("/admin/auth/user/")
        css = browser.text("/static/admin/css/base.css")
        assert "--primary" in css
        with browser.open("/static/admin/css/base.css", Range="bytes=10-29") as answer:
            assert answer.status == 206
            assert answer.read().decode() == css[10:30]
        for size in (10, 3_000_000):
            body, headers = multipart("n\u00e4me", b"\x01" * size)
            assert browser.text("/upload", body, **headers) == f"n\u00e4me {size} {size % 1000}"
        assert browser.text("/stream") == "".join(f"{number}," for number in range(5000))
        with browser.open("/download") as answer:
            assert answer.headers["Content-Length"] == "2048000"
            assert answer.read() == bytes(range(256)) * 8000
        for start, end in ((5, 9), (1000, 400_000)):
            with browser.open("/part", Range=f"bytes={start}-{end}") as answer:
                assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes {start}-{end}/2048000")
                assert answer.headers["Content-Length"] == str(end - start + 1)
                assert answer.read() == (bytes(range(256)) * 8000)[start : end + 1]
        assert browser.text("/in-memory") == "in memory"
        assert browser.text("/users") == "1"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            browser.text("/nothing")


@pytest.mark.parametrize("options", [(), ("--wsgi-buffer-requests", "off")], ids=" ".join)
def test_flask(tmp_path: Path, options: tuple[str, ...]) -> None:
    needs("flask")
    import hashlib

    (tmp_path / "flask_of_test.py").write_text(FLASK)
    with running(tmp_path, "flask_of_test:app", *options) as base:
        browser = Browser(base)
        content = os.urandom(2_000_000)
        digest = hashlib.sha256(content).hexdigest()
        body, headers = multipart("name", content)
        assert json.loads(browser.text("/upload", body, **headers)) == {"name": "name", "digest": digest}
        connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=LIMIT)
        connection.request("PUT", "/raw", iter([content[:500_000], content[500_000:]]), encode_chunked=True)
        assert json.load(connection.getresponse()) == {"size": 2_000_000, "digest": digest}
        connection.close()
        (tmp_path / "large").write_bytes(content)
        with browser.open("/file") as answer:
            tag = answer.headers["ETag"]
            assert answer.headers["Content-Length"] == "2000000"
            assert answer.read() == content
        for start, end in ((0, 0), (7, 99_999), (100_000, 1_999_999)):
            with browser.open("/file", Range=f"bytes={start}-{end}") as answer:
                assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes {start}-{end}/2000000")
                assert answer.read() == content[start : end + 1]
        with pytest.raises(urllib.error.HTTPError, match="304"):
            browser.open("/file", If_None_Match=tag)
        assert browser.text("/stream?word=w") == "".join(f"w {number}\n" for number in range(3000))


def wheel(filler: bytes) -> bytes:
    """Return a package that pip takes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("demo.py", b"FILLER = " + repr(filler).encode())
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    return file.getvalue()


def test_pypiserver(tmp_path: Path) -> None:
    needs("pypiserver")
    needs("pip")
    (tmp_path / "pypi_of_test.py").write_text(PYPISERVER)
    name, package = "demo-1.0-py3-none-any.whl", wheel(random.Random(1).randbytes(300_000))
    body = (
        b'--b\r\nContent-Disposition: form-data; name=":action"\r\n\r\nfile_upload\r\n--b\r\n'
        b'Content-Disposition: form-data; name="content"; filename="' + name.encode() + b'"\r\n\r\n'
    )
    with running(tmp_path, "pypi_of_test:app") as base:
        browser = Browser(base)
        browser.text("/", body + package + b"\r\n--b--\r\n", Content_Type="multipart/form-data; boundary=b")
        assert name in browser.text("/simple/demo/")
        pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "download"]
        subprocess.run(
            [
                *pip,
                "--no-deps",
                "--no-cache-dir",
                "-i",  # the address of the index
                base + "/simple/",
                "--dest",
                tmp_path / "got",
                "demo==1.0",
            ],
            check=True,
            timeout=60,
            capture_output=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "http"))},
        )
    assert (tmp_path / "got" / name).read_bytes() == package


def test_moto_with_boto3(tmp_path: Path) -> None:
    needs("moto")
    boto3 = pytest.importorskip("boto3")
    (tmp_path / "moto_of_test.py").write_text(MOTO)
    with running(tmp_path, "moto_of_test:app") as base:
        options = {
            "endpoint_url": base,
            "region_name": "us-east-1",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
        }
        s3 = boto3.client("s3", **options)
        s3.create_bucket(Bucket="bucket")
        content = os.urandom(1_500_000)
        s3.put_object(Bucket="bucket", Key="a/b \u00e4", Body=content)
        assert s3.get_object(Bucket="bucket", Key="a/b \u00e4")["Body"].read() == content
        part = s3.get_object(Bucket="bucket", Key="a/b \u00e4", Range="bytes=100-199")
        assert part["Body"].read() == content[100:200]
        assert s3.head_object(Bucket="bucket", Key="a/b \u00e4")["ContentLength"] == len(content)
        assert [item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["a/b \u00e4"]
        s3.delete_object(Bucket="bucket", Key="a/b \u00e4")
        assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 0
        sqs = boto3.client("sqs", **options)
        queue = sqs.create_queue(QueueName="queue")["QueueUrl"]
        sqs.send_message(QueueUrl=queue, MessageBody="hello")
        assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hello"
