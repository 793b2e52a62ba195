"""docs/build.py: which versions the site has, and which links lead nowhere."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT, module_of


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    return module_of(ROOT / "docs/build.py")


def test_the_newest_tag_of_each_minor_version_counts(builder: ModuleType) -> None:
    tags = ["v0.1.0", "v0.1.10", "v0.1.9", "v0.10.0", "v0.2.0", "v0.3.0rc1", "nightly"]
    assert list(builder.released(tags).items()) == [("0.10", "v0.10.0"), ("0.2", "v0.2.0"), ("0.1", "v0.1.10")]
    assert builder.released([]) == {}


@pytest.mark.parametrize(
    ("link", "faults"),
    [
        ("b.html", 0),
        ("b.html#here", 0),
        ("folder/", 0),
        ("#top", 0),
        ("https://example.org/x", 0),
        ("b%2ehtml", 0),
        ("c.html", 1),
        ("b.html#there", 1),
        ("#gone", 1),
    ],
)
def test_a_link_that_leads_nowhere_is_found(builder: ModuleType, tmp_path: Path, link: str, faults: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/index.html").write_text("")
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1>')
    (tmp_path / "a.html").write_text(f'<h1 id="top">A</h1><a href="{link}">B</a>')
    assert builder.broken(tmp_path) == [f"a.html: {link}"] * faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [("with --workers", 0), ("with \u2013workers 2", 1), ("2\u20134 workers, x\u2013y", 0), ("a \u2013 b", 0)],
)
def test_an_option_that_cannot_be_copied_is_found(builder: ModuleType, tmp_path: Path, text: str, faults: int) -> None:
    (tmp_path / "a.html").write_text(f"<p>{text}</p>", encoding="utf-8")
    assert builder.joined(tmp_path) == ["a.html: \u2013workers"] * faults


CONF = 'project = "p"\nextensions = ["myst_parser"]\n'


@pytest.mark.long
def test_a_site_of_two_versions(builder: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("myst_parser")
    source = tmp_path / "source"
    for name, text in (
        ("docs/conf.py", CONF),
        ("docs/index.md", "# Old\n"),
        ("bridge/_version.py", '"""Of "it"."""\n__version__ = "0.2.0"\n'),
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=source, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "old")
    git("tag", "v0.1.0")
    (source / "docs/index.md").write_text("# New\n\n```{toctree}\nmore\n```\n")
    (source / "docs/more.md").write_text("# More\n\n[back](index.md)\n")
    site = tmp_path / "site"
    assert builder.main(source, site) == 0
    assert "Old" in (site / "0.1/index.html").read_text()
    assert "New" in (site / "latest/index.html").read_text()
    assert "latest/" in (site / "index.html").read_text()
    menu = json.loads((site / "versions.js").read_text().partition("= ")[2].rstrip(";\n"))
    assert [entry["title"] for entry in menu] == ["latest (0.2.0)", "0.1"]
    assert ["more.html" in entry["pages"] for entry in menu] == [True, False]

    old = (site / "0.1/index.html").stat().st_mtime_ns
    (source / "docs/more.md").write_text("# More\n\n<a href='no.html'>gone</a>\n")
    assert builder.main(source, site) == 1
    assert "broken link: more.html: no.html" in capfd.readouterr().err
    assert (site / "0.1/index.html").stat().st_mtime_ns == old
