# SPDX-License-Identifier: Apache-2.0
"""The fonts that are installed: their sources, what they print, and the cache of that."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

import pytest

from conferral.adapters import fonts
from conferral.adapters.fonts import Fonts, font_directories
from support import require
from support.certificates import STRESS_NAMES

MEGABYTES = 35


@pytest.fixture
def packaged() -> Path:
    """Return the folder of the package conferral-fonts."""
    if importlib.util.find_spec("conferral_fonts") is None:
        require.missing(
            "the package conferral-fonts is not installed", "uv pip install ./packages/conferral-fonts"
        )
    return font_directories()[0]


def test_every_packaged_font_is_the_one_in_its_source_list(packaged: Path) -> None:
    """No font is in the package without a named origin, a licence and the digest of what was taken over."""
    beside = packaged.parent / "SOURCES.md"
    listing = beside if beside.is_file() else packaged.parents[2] / "SOURCES.md"
    rows = re.findall(
        r"^\| (\S+) \|.*\| (\S+\.txt) \| `([0-9a-f]{64})` \|$", listing.read_text(), re.MULTILINE
    )
    present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in packaged.iterdir()}
    assert {name: digest for name, _, digest in rows} == present
    assert all((packaged.parent / "licences" / licence).is_file() for _, licence, _ in rows)
    assert sum(path.stat().st_size for path in packaged.iterdir()) <= MEGABYTES * 1_000_000


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize("name", STRESS_NAMES.values(), ids=STRESS_NAMES)
def test_every_living_script_is_printable(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A fresh machine prints every name without asking the operating system for a font."""
    cache = tmp_path_factory.getbasetemp() / "coverage"
    assert Fonts(cache_dir=cache).unprintable(name) == ()


@pytest.mark.usefixtures("packaged")
def test_characters_without_a_font_are_named_once_each(tmp_path: Path) -> None:
    """The answer 422 names what cannot be printed; joiners and selectors print nothing and are fine."""
    found = Fonts(cache_dir=tmp_path).unprintable("A\u200d\ufe0f😀B😀\x07\ud800𓀀")
    assert found == ("😀", "\x07", "\ud800", "𓀀")


@pytest.mark.usefixtures("packaged")
def test_the_coverage_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process asks the cache, which is named by the fonts' digest."""
    first = Fonts(cache_dir=tmp_path)
    assert first.unprintable("Ł") == ()
    assert [path.name for path in tmp_path.iterdir()] == [f"coverage-{first.sha256}.json"]
    monkeypatch.setattr(fonts, "_characters", lambda path: pytest.fail(f"{path} was read again"))
    assert Fonts(cache_dir=tmp_path).unprintable("Ł😀") == ("😀",)


@pytest.mark.usefixtures("packaged")
def test_a_damaged_or_forbidden_cache_costs_time_only(tmp_path: Path) -> None:
    """Half a cache file, or none that can be written, never decides whether a name is accepted."""
    (tmp_path / f"coverage-{Fonts().sha256}.json").write_text("[[1,")
    assert Fonts(cache_dir=tmp_path).unprintable("Ł") == ()
    blocked = tmp_path / "file"
    blocked.touch()
    assert Fonts(cache_dir=blocked / "below").unprintable("Ł") == ()


def test_a_folder_of_ones_own_changes_the_digest(tmp_path: Path) -> None:
    """Documents record which fonts they were printed with."""
    before = Fonts().sha256
    (tmp_path / "more.ttf").write_bytes(b"not read for a digest")
    (tmp_path / "more.woff").write_bytes(b"not a font for typst")
    after = Fonts([tmp_path])
    assert after.sha256 != before
    assert after.directories[-1] == tmp_path.resolve()
    assert [path.name for path in after.files if path.parent == tmp_path] == ["more.ttf"]


def test_without_the_package_the_embedded_letters_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare wheel issues Latin, Greek and Cyrillic certificates, and says no to the rest at intake."""
    monkeypatch.setattr(fonts, "FONT_PACKAGE", "conferral_fonts_absent")
    bare = Fonts(cache_dir=tmp_path)
    assert bare.directories == ()
    assert bare.unprintable("Łukasz Ελένη Наталія Nguyễn \u2013 \u201cO\u2019Brien\u201d") == ()
    assert bare.unprintable("a\u200d\u2066b\u2069\ufe0f") == ()
    assert bare.unprintable("محمد 王") == ("م", "ح", "د", "王")
    assert bare.sha256 != Fonts().sha256 or not Fonts().files
