# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()
    if (ROOT / name).is_file()
)  # fmt: skip
OURS = [page for page in PAGES if page.parent == ROOT or page.is_relative_to(ROOT / "docs")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MOST_CHARACTERS = 125  # a line that a terminal shows; tables may be longer
FENCED_LINE = re.compile(r"^(?:\||!?\[|\s*https?:)")


def relative(path: Path) -> str:
    """Return a path as the failure should name it."""
    return str(path.relative_to(ROOT))


def anchor(heading: str) -> str:
    """Return the fragment under which a heading is found on the usual hosts."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def headings(page: Path) -> set[str]:
    """Return the fragments of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {anchor(line.lstrip("#")) for line in text.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """A link to a page, a picture, a file of the source or a heading is not broken."""
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and fragment not in headings(file)):
            broken.append(target)
    assert broken == []


def test_every_page_of_the_documentation_can_be_reached_from_its_index() -> None:
    """A page that nothing links to is not read."""
    docs = ROOT / "docs"
    seen: set[Path] = set()
    waiting = [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_relative_to(docs):
            continue
        seen.add(page)
        targets = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        waiting += [
            (page.parent / target.partition("#")[0]).resolve() for target in targets if ":" not in target
        ]
    assert {relative(page) for page in docs.rglob("*.md")} - {relative(page) for page in seen} == set()


@pytest.mark.parametrize("page", OURS, ids=relative)
def test_lines_fit_a_terminal(page: Path) -> None:
    """Prose is wrapped; only rows of tables, links and what a program prints may be longer."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    long = [line for line in text.splitlines() if len(line) > MOST_CHARACTERS and not FENCED_LINE.match(line)]
    assert long == []


@pytest.mark.parametrize("drawing", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=relative)
def test_drawings_say_in_words_what_they_show(drawing: Path) -> None:
    """Title and description for those who hear the page; colours that follow the reader's."""
    text = drawing.read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314 - our own file
    names = {element.tag.rpartition("}")[2] for element in root}
    assert {"title", "desc"} <= names
    assert "prefers-color-scheme: dark" in text
    assert "http" not in re.sub(r'xmlns="[^"]+"', "", text)


def test_the_architecture_page_is_short() -> None:
    """It is read in one sitting, or not at all."""
    assert len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) < 350
