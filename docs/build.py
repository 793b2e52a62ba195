"""Build the site of all versions into a folder: ``python docs/build.py build/docs``, or ``make docs``.

``latest`` has the pages of this work tree. Each minor version that has a tag, such as v0.1.2, has the pages of its
newest one in a folder of its own, ``0.1``; it is built again only when the tag is another one. ``versions.js`` tells
the menu of all of them which versions and pages there are, so that old pages need not be built again for it. Then every
link from page to page is followed.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
START = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>bridge</title>
<meta http-equiv="refresh" content="0; url=latest/index.html">
<link rel="canonical" href="latest/index.html">
<a href="latest/index.html">The documentation of bridge</a>
</html>
"""


def git(root: Path, *words: str) -> bytes:
    """Return the output of git; nothing where *root* is no repository."""
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def released(tags: list[str]) -> dict[str, str]:
    """Return the newest tag of each minor version, by its name ("0.1"), the newest version first."""
    newest: dict[tuple[int, int], int] = {}
    for tag in tags:
        if match := TAG.fullmatch(tag):
            major, minor, patch = map(int, match.groups())
            newest[major, minor] = max(patch, newest.get((major, minor), 0))
    return {
        f"{major}.{minor}": f"v{major}.{minor}.{patch}"
        for (major, minor), patch in sorted(newest.items(), reverse=True)
    }


def build(source: Path, target: Path, *options: str) -> None:
    """Build the pages of one version.

    Raises:
        subprocess.CalledProcessError: Sphinx has failed; it has said why.
    """
    command = [sys.executable, "-m", "sphinx", "--quiet", *options, "-b", "html", str(source / "docs"), str(target)]
    subprocess.run(command, cwd=source, check=True)


def build_released(root: Path, tag: str, target: Path) -> None:
    """Build the pages of a tag, unless *target* has them already."""
    commit = git(root, "rev-parse", f"{tag}^{{commit}}").decode().strip()
    mark = target / ".commit"
    if mark.exists() and mark.read_text() == commit:
        return
    shutil.rmtree(target, ignore_errors=True)
    source = target.parent.with_name(f"{target.parent.name}-{tag}")
    with tarfile.open(fileobj=io.BytesIO(git(root, "archive", tag))) as archive:
        archive.extractall(source, filter="data")
    build(source, target)  # its warnings were errors when it was released; a newer Sphinx may have others
    shutil.rmtree(source)
    mark.write_text(commit)


def pages(folder: Path) -> list[str]:
    """Return the pages of one version."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))


def write_start(site: Path, names: list[str], version: str) -> None:
    """Write what stands beside the folders of the versions."""
    menu = [
        {"name": name, "title": f"latest ({version})" if name == "latest" else name, "pages": pages(site / name)}
        for name in names
    ]
    (site / "versions.js").write_text(f"window.BRIDGE_VERSIONS = {json.dumps(menu)};\n", encoding="utf-8")
    (site / "index.html").write_text(START, encoding="utf-8")
    (site / ".nojekyll").touch()  # hosts that run Jekyll leave out folders such as _static otherwise


class _Page(HTMLParser):
    """Collects the links of a page, and the names that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the attributes that are links or names."""
        for name, value in attrs:
            if value and name in ("href", "src") and not (tag == "link" and ("rel", "search") in attrs):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.names.add(value)


def broken(folder: Path) -> list[str]:
    """Return the links between the files of *folder* that lead nowhere, each with its page."""
    found = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    faults = []
    for path, page in found.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in found and anchor not in found[target].names):
                faults.append(f"{path.relative_to(folder.resolve())}: {link}")
    return sorted(set(faults))


def joined(folder: Path) -> list[str]:
    """Return the options whose two dashes became one sign, so that nobody can copy them, each with its page."""
    return sorted(
        f"{path.relative_to(folder)}: {option}"
        for path in folder.rglob("*.html")
        for option in set(re.findall(r"(?<!\w)\u2013[a-z][\w-]+", path.read_text(encoding="utf-8")))
    )


def main(root: Path, site: Path) -> int:
    """Build the site; return 1 if a link is broken, or an option cannot be copied."""
    site.mkdir(parents=True, exist_ok=True)
    tags = released(git(root, "tag").decode().split())
    names = ["latest", *tags]
    for path in site.iterdir():  # of an earlier build: what no version has
        if path.is_dir() and path.name not in names:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    build(root, site / "latest", "--fail-on-warning", "--keep-going")
    for name, tag in tags.items():
        build_released(root, tag, site / name)
    version = re.search(
        r'^__version__ = "(.+)"', (root / "bridge/_version.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    write_start(site, names, version[1] if version else "")
    faults = [f"broken link: {fault}" for fault in broken(site / "latest")]
    faults += [f"dashes joined: {fault}" for fault in joined(site / "latest")]
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"Made {site}/index.html, with {', '.join(names)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(ROOT, Path(sys.argv[1]).resolve()))
