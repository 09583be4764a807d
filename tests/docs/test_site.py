"""The site builds without a warning, every link leads somewhere, and pages need no other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, name
from tests.paths import REPO


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. mkdocs reports missing pages, links and anchors, and pages that are not in the navigation."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", directory],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class Links(HTMLParser):
    """Addresses that a page loads or links to, and the ids in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if tag == "a" and values.get("href"):
            self.linked.append(str(values["href"]))
        elif tag in ("script", "img", "link", "iframe"):
            self.loaded += [str(values[key]) for key in ("src", "href") if values.get(key)]


def test_every_page_is_built_and_linked_to(site: Path) -> None:
    built = {page.relative_to(site).as_posix() for page in site.rglob("*.html")} - {"404.html"}
    for page in PAGES:
        if page.is_relative_to(REPO / "docs"):
            assert page.relative_to(REPO / "docs").with_suffix(".html").as_posix() in built
    linked = {link.partition("#")[0] for link in Links(site / "index.html").linked}
    assert built - linked == set()


def test_every_link_and_anchor_of_the_built_site_leads_somewhere(site: Path) -> None:
    parsed = {page: Links(page) for page in site.rglob("*.html")}
    checked = 0
    for page, links in parsed.items():
        if page.name == "404.html":
            continue
        for link in links.linked + links.loaded:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page}: {link}"
            if anchor and target in parsed and anchor != "__skip":
                assert anchor in parsed[target].ids, f"{page}: {link}"
            checked += 1
    assert checked > 1000


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        for address in Links(page).loaded:
            if 'rel="canonical"' not in address:
                assert not re.match(r"(https?:)?//", address), f"{page}: {address}"


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as hosting services and mkdocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if not page.is_relative_to(REPO / "docs")], ids=name)
def test_every_link_outside_the_site_leads_somewhere(page: Path) -> None:
    """Pages that people read in the repository: README, CONTRIBUTING and others."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: {link}"
