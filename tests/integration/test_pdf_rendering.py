# SPDX-License-Identifier: Apache-2.0
"""Certificates as a reader meets them: conformance, names, QR symbol, attachment, for every design."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pikepdf
import pytest
import zxingcpp
from PIL import Image

from conferral.adapters.design_store import design_names, materialise
from conferral.adapters.fonts import Fonts
from conferral.adapters.pdf import Renderer
from conferral.domain.pdf_attachment import attach, check_attachable, split
from support import require
from support.certificates import STRESS_NAMES, TIMESTAMP, certificate_data

CREATED = datetime.fromtimestamp(TIMESTAMP, tz=UTC)
CREDENTIAL = b'{"type":["VerifiableCredential"],"note":"%%EOF is no end \xc3\xa9"}'
SIGNATURES = [
    {"name": "Head of Studies", "title": "Director"},
    {"name": "Second Signature", "title": "Rector"},
]
THEMES = {
    "landscape": {"signatures": SIGNATURES},
    "portrait": {"orientation": "portrait", "signatures": SIGNATURES, "qr_position": "left"},
    "letter": {"paper_size": "us-letter", "guilloche": "frame", "seal": "none", "show_description": True},
}
# typst's own XMP, where the validator is stricter than ISO 19005-3 with its extension schemas.
KNOWN_VIOLATIONS = re.compile(r"(?:namespace|property) (?:xmpTPg|pdfaExtension|pdfaSchema|pdfaProperty)\b")
# What the validator says it cannot judge; veraPDF does.
UNJUDGED = re.compile(r"/CIDSet on a CIDFontType2 subset|structured XMP property xmpMM:History")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for template versions."""
    return tmp_path_factory.mktemp("templates")


@pytest.fixture(scope="module")
def renderer(templates: Path) -> Iterator[Renderer]:
    """Return a renderer that is closed in the end."""
    if not Fonts().files:
        require.missing(
            "the package conferral-fonts is not installed", "uv pip install ./packages/conferral-fonts"
        )
    one = Renderer(templates)
    yield one
    one.close()


def run(program: str, *arguments: str | Path) -> str:
    """Run a program of poppler or qpdf and return what it printed."""
    package = "qpdf" if program == "qpdf" else "poppler-utils"
    path = require.program(program, f"apt-get install {package}")
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, check=True, timeout=60)
    return done.stdout.decode()


def findings(path: Path) -> list[str]:
    """Return what a PDF/A-3b validator says of a file, without what is known of typst."""
    try:
        from pikepdf import pdfa
    except ImportError:
        require.missing("the PDF/A validator is not installed", "uv pip install 'pikepdf[pdfa]'")
    report = pdfa.validate_written(path, "3b")
    lines = [str(finding) for finding in report.findings]
    return [
        line
        for line in lines
        if not (line.startswith("[violation] ISO_19005_3:6.6.2.3.1-1") and KNOWN_VIOLATIONS.search(line))
        and not (line.startswith("[unsupported]") and UNJUDGED.search(line))
    ]


def letters(text: str) -> str:
    """Reduce a text to the letters and digits by which a reader recognises it."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(sign for sign in plain if unicodedata.category(sign)[0] in "LN")


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
@pytest.mark.parametrize("design", design_names())
def test_a_document_conforms_and_carries_its_credential(
    design: str, theme: dict[str, object], renderer: Renderer, templates: Path, tmp_path: Path
) -> None:
    """Base and final document are clean PDF/A-3b, and the attachment comes out as it went in."""
    version = materialise(templates, design, theme)
    base = renderer.render(version, certificate_data(description="Awarded."), timestamp=TIMESTAMP)
    final = attach(base.content, CREDENTIAL, CREATED)
    assert base.sha256 == hashlib.sha256(base.content).hexdigest()
    assert base.content in set(split(final))
    for name, content in (("base.pdf", base.content), ("final.pdf", final)):
        path = tmp_path / name
        path.write_bytes(content)
        assert "No syntax or stream encoding errors found" in run("qpdf", "--check", path)
        assert findings(path) == []
        assert all(line.split()[-5] == "yes" for line in run("pdffonts", path).splitlines()[2:])
    run("pdfdetach", "-save", "1", "-o", tmp_path / "out.json", tmp_path / "final.pdf")
    assert (tmp_path / "out.json").read_bytes() == CREDENTIAL


def test_the_attachment_is_associated_as_pdfa_3_demands(
    renderer: Renderer, templates: Path, tmp_path: Path
) -> None:
    """The file specification has every key of ISO 19005-3 6.8, and the document keeps its information."""
    base = renderer.render(materialise(templates, "diploma", {}), certificate_data(), timestamp=TIMESTAMP)
    (tmp_path / "final.pdf").write_bytes(attach(base.content, CREDENTIAL, CREATED))
    with pikepdf.open(tmp_path / "final.pdf") as pdf:
        (associated,) = list(pdf.Root.AF)
        assert (associated.F, associated.UF) == ("credential.json", "credential.json")
        assert associated.AFRelationship == "/Data"
        assert associated.EF.F.Subtype == "/application/vc"
        assert bytes(associated.EF.F.read_bytes()) == CREDENTIAL
        assert str(associated.EF.F.Params.ModDate) == CREATED.strftime("D:%Y%m%d%H%M%SZ")
        assert pdf.trailer.Info.Title == "Distributed Systems \u2013 Jana Kowalska"
        assert pdf.trailer.ID[0] != pdf.trailer.ID[1]
        assert str(pdf.Root.Lang) == "en"
        assert pdf.Root.MarkInfo.Marked
        assert pdf.Root.StructTreeRoot is not None


def test_what_attach_relies_on_holds(renderer: Renderer, templates: Path, tmp_path: Path) -> None:
    """A typst that writes another kind of file fails here, and not at the first verification.

    Classic table, no object streams, a plain catalog, one end without a line end; and a labelled heading puts
    /Names into the catalog, beside which the attachment must go.
    """
    plain = materialise(templates, "diploma", {})
    labelled = write_template(templates, ["#set document(title: [x])\n= Heading <here>\n", "here-not\n"][0])
    for version in (plain, labelled):
        content = renderer.render(version, certificate_data(), timestamp=TIMESTAMP).content
        check_attachable(content)
        assert content.startswith(b"%PDF-1.7")
        assert content.count(b"%%EOF") == 1
        assert content.endswith(b"%%EOF")
        assert b"/ObjStm" not in content
        assert b"/XRef" not in content
    path = tmp_path / "labelled.pdf"
    path.write_bytes(attach(content, CREDENTIAL, CREATED))
    assert "No syntax or stream encoding errors found" in run("qpdf", "--check", path)
    with pikepdf.open(path) as pdf:
        assert set(pdf.Root.Names.keys()) == {"/Dests", "/EmbeddedFiles"}


@pytest.mark.parametrize("orientation", ["landscape", "portrait"])
@pytest.mark.parametrize("design", design_names())
def test_the_printed_qr_symbol_opens_the_credential(
    design: str, orientation: str, renderer: Renderer, templates: Path, tmp_path: Path
) -> None:
    """A telephone reads the address from paper, 25 mm wide or more, with four modules of quiet around it."""
    data = certificate_data()
    version = materialise(templates, design, {"orientation": orientation, "ink": "#5a4632"})
    (tmp_path / "page.pdf").write_bytes(renderer.render(version, data, timestamp=TIMESTAMP).content)
    run("pdftoppm", "-r", "200", "-png", "-singlefile", tmp_path / "page.pdf", tmp_path / "page")
    page = Image.open(tmp_path / "page.png").convert("L")
    (symbol,) = zxingcpp.read_barcodes(page, formats=zxingcpp.BarcodeFormat.QRCode)
    assert symbol.text == data["credential"]["verification_url"]
    assert symbol.ec_level == "M"
    corner, opposite = symbol.position.top_left, symbol.position.bottom_right
    millimetres = (opposite.x - corner.x) / 200 * 25.4
    assert millimetres >= 25
    quiet = int(4 * (opposite.x - corner.x) / 33)
    for box in (
        (corner.x - quiet, corner.y - quiet, corner.x - 2, opposite.y + quiet),
        (opposite.x + 3, corner.y - quiet, opposite.x + quiet, opposite.y + quiet),
        (corner.x - quiet, corner.y - quiet, opposite.x + quiet, corner.y - 2),
        (corner.x - quiet, opposite.y + 3, opposite.x + quiet, opposite.y + quiet),
    ):
        darkest, lightest = page.crop(box).getextrema()
        assert lightest - darkest < 60, box


@pytest.mark.parametrize("name", STRESS_NAMES.values(), ids=STRESS_NAMES)
@pytest.mark.parametrize(
    "sheet", list(itertools.product(design_names(), ["landscape", "portrait"])), ids="-".join
)
def test_every_name_is_printed_on_one_page(
    sheet: tuple[str, str], name: str, renderer: Renderer, templates: Path, tmp_path: Path
) -> None:
    """A name of any script and of up to 120 characters is there, whole, on a single page."""
    version = materialise(templates, sheet[0], {"orientation": sheet[1], "signatures": SIGNATURES})
    data = certificate_data(recipient_name=name, course="Foundations of Trustworthy Systems " * 4)
    path = tmp_path / "page.pdf"
    path.write_bytes(renderer.render(version, data, timestamp=TIMESTAMP).content)
    with pikepdf.open(path) as pdf:
        assert len(pdf.pages) == 1
    text = letters(run("pdftotext", "-nodiag", path, "-"))
    assert sorted(letters(name)) == sorted(set_aside(text, name)), text


@pytest.mark.parametrize("orientation", ["landscape", "portrait"])
def test_everything_at_once_stays_on_one_page(orientation: str, renderer: Renderer, templates: Path) -> None:
    """Logo, three signatures, the longest name and course, every field: smaller, never cut."""
    logo = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 2"><rect width="4" height="2"/></svg>'
    theme = {"logo": logo, "signatures": [*SIGNATURES, SIGNATURES[0]], "show_description": True}
    version = materialise(templates, "diploma", {**theme, "orientation": orientation})
    data = certificate_data(
        recipient_name=STRESS_NAMES["hundred and twenty"],
        course="Foundations of Trustworthy Systems and Proofs " * 4,
        description="Awarded on completing the course and all its assessments. " * 5,
        organisation_name="International Graduate Institute for Applied Sciences and Technology of the North",
        expires_on="2030-01-01",
    )
    content = renderer.render(version, data, timestamp=TIMESTAMP).content
    with pikepdf.open(io.BytesIO(content)) as pdf:
        assert len(pdf.pages) == 1


def set_aside(text: str, name: str) -> str:
    """Return the letters of `name` that a text holds; their order is the viewer's business."""
    found = []
    rest = list(text)
    for sign in letters(name):
        if sign in rest:
            rest.remove(sign)
            found.append(sign)
    return "".join(found)


@pytest.mark.parametrize("language", ["en", "de-AT", "ar", "he", "pt-BR", "zh-Hans-CN", "xx", "", None])
def test_a_document_speaks_the_language_it_is_given(
    language: str | None, renderer: Renderer, templates: Path
) -> None:
    """What has no wording falls back to English; what is no language never fails a document."""
    version = materialise(templates, "diploma", {})
    content = renderer.render(version, certificate_data(language=language), timestamp=TIMESTAMP).content
    with pikepdf.open(io.BytesIO(content)) as pdf:
        first = (language or "en").split("-")[0]
        assert str(pdf.Root.Lang).split("-")[0] == first


def test_missing_optional_fields_leave_no_trace(renderer: Renderer, templates: Path, tmp_path: Path) -> None:
    """A credential with a course and nothing else prints no empty label."""
    data = certificate_data(grade=None, completed_on=None, student_no=None, organisation_name="")
    data["credential"]["expires_on"] = None
    path = tmp_path / "page.pdf"
    path.write_bytes(
        renderer.render(materialise(templates, "diploma", {}), data, timestamp=TIMESTAMP).content
    )
    text = run("pdftotext", path, "-")
    assert "Issued on" in text
    assert not re.search("Grade|Completed|Student|Valid", text)


def test_a_test_document_says_so(renderer: Renderer, templates: Path, tmp_path: Path) -> None:
    """What was issued in test mode cannot pass for a credential."""
    version = materialise(templates, "diploma", {})
    for test_mode in (True, False):
        path = tmp_path / "page.pdf"
        data = certificate_data(test_mode=test_mode)
        path.write_bytes(renderer.render(version, data, timestamp=TIMESTAMP).content)
        assert ("NOT A CREDENTIAL" in run("pdftotext", path, "-")) is test_mode


def test_an_organisation_may_change_the_wording(renderer: Renderer, templates: Path, tmp_path: Path) -> None:
    """Wording has placeholders that are filled in, and markup in it is text."""
    wording = {
        "en": {"title": "Award", "presented": "*{organisation.name}* honours", "statement": "for {course}:"}
    }
    path = tmp_path / "page.pdf"
    version = materialise(templates, "diploma", {"wording": wording})
    path.write_bytes(renderer.render(version, certificate_data(), timestamp=TIMESTAMP).content)
    text = run("pdftotext", path, "-")
    assert "*Northfield Institute of Technology* honours" in text
    assert "for Distributed Systems:" in text


def test_the_same_input_gives_the_same_bytes_in_another_process(templates: Path, renderer: Renderer) -> None:
    """Any host renders the document anew and compares; the date is the credential's and never the clock's."""
    version = materialise(templates, "diploma", {})
    first = renderer.render(version, certificate_data(), timestamp=TIMESTAMP)
    other = Renderer(templates)
    try:
        other.render(version, certificate_data(recipient_name="Somebody Else"), timestamp=1)
        assert other.render(version, certificate_data(), timestamp=TIMESTAMP).content == first.content
        assert other.render(version, certificate_data(), timestamp=TIMESTAMP + 1).content != first.content
    finally:
        other.close()


def test_a_preview_shows_the_same_page(renderer: Renderer, templates: Path) -> None:
    """The picture on the form, the share image and the print come from one entry file."""
    version = materialise(templates, "diploma", {})
    png = renderer.preview(version, certificate_data(), timestamp=TIMESTAMP, ppi=96)
    assert Image.open(io.BytesIO(png)).size == (1123, 794)
    svg = renderer.preview(version, certificate_data(), timestamp=TIMESTAMP, image_format="svg")
    assert svg.lstrip().startswith(b"<svg")
    green = certificate_data(theme={"paper": "#00ff00"})
    coloured = Image.open(io.BytesIO(renderer.preview(version, green, timestamp=TIMESTAMP, ppi=20)))
    assert coloured.convert("RGB").getpixel((1, 1)) == (0, 255, 0)


def write_template(templates: Path, source: str) -> str:
    """Write a template version of one file, as expert mode would, and return its name."""
    version = hashlib.sha256(source.encode()).hexdigest()
    (templates / version).mkdir(exist_ok=True)
    (templates / version / "entry.typ").write_text(source)
    return version
