# SPDX-License-Identifier: Apache-2.0
"""Themes, versions' names, the QR symbol and the motif: what a template is made of, without a renderer."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
import zxingcpp

from conferral.adapters import design_store, guilloche, theme_schema
from conferral.adapters.qr import URL_CHARACTERS, qr_svg

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{}</svg>'


@pytest.mark.parametrize("design", design_store.design_names())
def test_a_design_is_complete(design: str) -> None:
    """Every design of the gallery has fields, a theme whose defaults obey its own schema, and a sample."""
    schema = design_store.theme_schema_of(design)
    jsonschema_rs.Draft202012Validator(schema).validate(design_store.default_theme(design))
    credential = design_store.sample_of(design)["credential"]
    assert {field.id for field in design_store.fields_of(design) if field.required} <= credential.keys()
    assert all(rule.get("default") is not None for rule in schema["properties"].values())


def test_an_unknown_design_is_refused() -> None:
    """A name from a request never becomes a path."""
    for name in ("../designs", "_shared", "nothing"):
        with pytest.raises(design_store.DesignUnknown):
            design_store.fields_of(name)


@pytest.mark.parametrize(
    ("theme", "path"),
    [
        ({"colour": "#000000"}, "/colour"),
        ({"ink": "blue"}, "/ink"),
        ({"ink": 5}, "/ink"),
        ({"orientation": "round"}, "/orientation"),
        ({"show_description": 1}, "/show_description"),
        ({"signatures": [{"name": "A", "title": "B"}] * 4}, "/signatures"),
        ({"signatures": [{"name": "A"}]}, "/signatures/0/title"),
        ({"signatures": [{"name": "A" * 61, "title": ""}]}, "/signatures/0/name"),
        ({"wording": {"EN": {}}}, "/wording/EN"),
        ({"wording": {"en": {"title": "{recipient.email}"}}}, "/wording/en/title"),
        ({"wording": {"en": {"title": "two\nlines"}}}, "/wording/en/title"),
        ({"logo": "<svg>"}, "/logo"),
    ],
)
def test_a_theme_that_breaks_its_schema_is_refused(theme: dict[str, object], path: str) -> None:
    """The form shows which entry is wrong; nothing unknown is stored."""
    with pytest.raises(theme_schema.ThemeRefused) as refused:
        design_store.validate_theme("diploma", theme)
    assert [where for where, _ in refused.value.problems] == [path]


def test_every_problem_of_a_theme_is_named_at_once() -> None:
    """A person corrects a form once, not five times."""
    with pytest.raises(theme_schema.ThemeRefused) as refused:
        design_store.validate_theme("diploma", {"ink": "blue", "paper": "white", "x": 1})
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    "drawing",
    [
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"/>',
        "<html/>",
        SVG.format("<script>1</script>"),
        SVG.format("<foreignObject/>"),
        SVG.format("<style>@import url(https://example.org)</style>"),
        SVG.format('<image href="https://example.org/x.png"/>'),
        SVG.format('<image href="/etc/hostname"/>'),
        SVG.format('<image href="data:image/svg+xml;base64,AAAA"/>'),
        SVG.format('<use href="other.svg#a"/>'),
        SVG.format('<rect onload="x()"/>'),
        SVG.format('<rect fill="url(#a) url(https://example.org)"/>'),
        SVG.format('<rect style="fill:url(file:///etc/hostname)"/>'),
    ],
)
def test_a_drawing_that_reaches_outside_is_refused(drawing: str) -> None:
    """An uploaded logo cannot make the renderer read a file or a network."""
    assert theme_schema.svg_problem(drawing) is not None


@pytest.mark.parametrize(
    "drawing",
    [
        "",
        SVG.format('<g id="a"><path d="M0 0h9"/></g><use href="#a"/>'),
        SVG.format('<rect fill="url(#gradient)"/>'),
        SVG.format('<image href="data:image/png;base64,iVBORw0KGgo="/>'),
    ],
)
def test_a_drawing_of_its_own_is_accepted(drawing: str) -> None:
    """Vector logos with gradients and embedded pictures are ordinary."""
    assert theme_schema.svg_problem(drawing) is None


def test_a_schema_with_a_rule_that_is_not_checked_is_an_error() -> None:
    """A keyword nobody enforces must not look as if it were."""
    with pytest.raises(ValueError, match="not checked"):
        theme_schema.complete({"type": "string", "contentEncoding": "base64"}, "x")


def test_a_version_is_named_by_what_it_prints() -> None:
    """Defaults spelt out make no other version; another colour does."""
    plain = design_store.version_of("diploma", {})
    assert plain == design_store.version_of("diploma", design_store.default_theme("diploma"))
    assert plain != design_store.version_of("diploma", {"ink": "#000000"})
    assert len(plain) == 64


def test_the_motif_follows_the_page() -> None:
    """Portrait is the sheet turned round, and equal themes give equal drawings."""
    landscape = design_store.default_theme("diploma")
    portrait = design_store.validate_theme("diploma", {"orientation": "portrait", "paper_size": "us-letter"})
    assert 'width="297mm" height="210mm"' in guilloche.drawings(landscape)["frame.svg"]
    assert 'width="215.9mm" height="279.4mm"' in guilloche.drawings(portrait)["frame.svg"]
    assert guilloche.drawings(landscape) == guilloche.drawings(json.loads(json.dumps(landscape)))
    assert guilloche.tint("#000000", "#ffffff", 0.5) == "#808080"


def test_a_qr_symbol_says_its_address() -> None:
    """The drawing is the very symbol, one unit a module, at level M."""
    url = "https://credentials.example.org/c/Q7mW2xT9kLpRfB4nZc8sVd"
    symbol = zxingcpp.create_barcode(url, zxingcpp.BarcodeFormat.QRCode, ec_level="M")
    drawn = qr_svg(url)
    assert 'viewBox="0 0 33 33"' in drawn
    assert drawn.count("M") > 100
    assert symbol.text == url
    assert theme_schema.svg_problem(drawn) is None


@pytest.mark.parametrize("url", ["", "x" * (URL_CHARACTERS + 1)])
def test_an_address_that_does_not_fit_is_refused(url: str) -> None:
    """A symbol with modules too small to read at 25 mm is never printed."""
    with pytest.raises(ValueError, match="characters"):
        qr_svg(url)
