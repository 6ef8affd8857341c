# SPDX-License-Identifier: Apache-2.0
"""The house motif: guilloche, the line pattern of diplomas and banknotes, as SVG drawings.

Families of thin curves that differ only in phase. Pure: the same theme gives the same text. They are computed
once for a template version and not by the template, where they would cost 150 ms of every document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any, Final

TURN: Final = 2 * pi
# Millimetres, width and height of the upright sheet.
PAPER_SIZES: Final[Mapping[str, tuple[float, float]]] = {"a4": (210, 297), "us-letter": (215.9, 279.4)}

# Drawing units in a millimetre: 0.02 mm is finer than any printer, and whole numbers keep documents small.
UNITS: Final = 50

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ring:
    """Closed curves that swing between two radii (shares of the rosette's), `lobes` times a turn."""

    inner: float
    outer: float
    strands: int
    lobes: int
    stroke: str


def drawings(theme: Mapping[str, Any]) -> dict[str, str]:
    """Return the motif's drawings by file name: `frame.svg`, `medallion.svg`, `seal.svg`.

    `theme` is completed and has `ink`, `accent`, `paper`, `orientation` and `paper_size`.
    """
    ink, accent, paper = theme["ink"], theme["accent"], theme["paper"]
    short, long = PAPER_SIZES[theme["paper_size"]]
    page = (long, short) if theme["orientation"] == "landscape" else (short, long)
    return {
        "frame.svg": _svg(page, _frame(page, ink, accent, paper)),
        "medallion.svg": _svg((200, 200), _medallion(_pen(tint(ink, paper, 0.09), 0.15))),
        "seal.svg": _svg((34, 34), _seal(accent)),
    }


def tint(ink: str, paper: str, share: float) -> str:
    """Mix two colours such as #12344d: opaque, so that printing and PDF/A viewers need no transparency."""
    pairs = ((int(ink[at : at + 2], 16), int(paper[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(dark * share + light * (1 - share)):02x}" for dark, light in pairs)


def _frame(page: Point, ink: str, accent: str, paper: str) -> Iterator[str]:
    # From the paper's edge inwards: a hairline, the band, a hairline, a gold rule. Rosettes hold the corners.
    soft = tint(ink, paper, 0.70)
    radius, middle, edge, high = 9.0, 14.0, 8.1, 8.0
    for inset, pen in ((7.0, _pen(ink, 0.14)), (17.2, _pen(ink, 0.14)), (18.4, _pen(accent, 0.36))):
        yield from _rules(page, inset, middle, radius + 0.8, pen)
    for length, turned in ((page[0] - 2 * middle, False), (page[1] - 2 * middle, True)):
        waves = 2 * round(length / 15)
        lattice = _band(length, high, strands=8, waves=waves, depth=0.24)
        chain = _band(length, high * 0.46, strands=2, waves=waves, depth=0)
        for near in (edge, (page[0] if turned else page[1]) - edge - high):
            place = f"{_shift(near + high, middle)} rotate(90)" if turned else _shift(middle, near)
            yield f'<g transform="{place}"><path {_pen(soft, 0.075)} d="{lattice}"/>'
            yield f'<path transform="{_shift(0, high * 0.27)}" {_pen(accent, 0.12)} d="{chain}"/></g>'
    rings = (Ring(0.52, 1, 6, 24, _pen(soft, 0.075)), Ring(0.16, 0.50, 6, 12, _pen(accent, 0.09)))
    for x in (middle, page[0] - middle):
        for y in (middle, page[1] - middle):
            yield f'<circle cx="{_near(x)}" cy="{_near(y)}" r="{_near(radius + 0.8)}" fill="{paper}"/>'
            yield from _rosette((x, y), radius, rings)


def _rules(page: Point, inset: float, middle: float, clear: float, pen: str) -> Iterator[str]:
    # Each rule ends where the clear circle around a corner's rosette begins.
    start = middle + (clear**2 - (middle - inset) ** 2) ** 0.5
    wide, tall = page
    for x, y, u, v in (
        (start, inset, wide - start, inset),
        (start, tall - inset, wide - start, tall - inset),
        (inset, start, inset, tall - start),
        (wide - inset, start, wide - inset, tall - start),
    ):
        yield f'<path {pen} d="M{_near(x)} {_near(y)}L{_near(u)} {_near(v)}"/>'


def _medallion(pen: str) -> Iterator[str]:
    rings = (Ring(0.74, 1, 5, 48, pen), Ring(0.46, 0.80, 5, 32, pen), Ring(0.12, 0.54, 6, 16, pen))
    yield from _rosette((100, 100), 100, rings)


def _seal(accent: str) -> Iterator[str]:
    pen = _pen(accent, 0.1)
    yield from _rosette((17, 17), 17, (Ring(0.80, 1, 5, 36, pen), Ring(0.42, 0.74, 8, 18, pen)))
    for radius in (13.1, 7.2):
        yield f'<circle cx="{_near(17)}" cy="{_near(17)}" r="{_near(radius)}" {_pen(accent, 0.21)}/>'


def _band(length: float, height: float, *, strands: int, waves: int, depth: float) -> str:
    """Draw waves along a straight band; their swing swells every second wave, which gives the beads.

    Every strand is sampled at its own crests and troughs, where two points a period are enough; its ends are
    ragged, within one period, and belong under a rosette.
    """
    step, scale, swing = pi, length / (TURN * waves), height / 2
    curves = []
    for strand in range(strands):
        phase = TURN * strand / strands
        points = []
        for index in range(2 * waves + 3):
            t = index * step - phase
            if not 0 <= t <= TURN * waves:
                continue
            crest = 1 if index % 2 == 0 else -1
            hull = 1 - depth + depth * cos(t / 2)
            slope = -depth / 2 * sin(t / 2)
            points.append(((t * scale, swing + swing * hull * crest), (scale, swing * slope * crest)))
        curves.append(_chain(points, step))
    return "".join(curves)


def _rosette(centre: Point, radius: float, rings: tuple[Ring, ...]) -> Iterator[str]:
    yield f'<g transform="{_shift(*centre)}">'
    for ring in rings:
        step = TURN / (2 * ring.lobes)
        curves = []
        for strand in range(ring.strands):
            start = TURN * strand / (ring.strands * ring.lobes)
            points = []
            for index in range(2 * ring.lobes + 1):
                angle = index * step + start
                reach = radius * (ring.outer if index % 2 == 0 else ring.inner)
                x, y = reach * cos(angle), reach * sin(angle)
                points.append(((x, y), (-y, x)))
            curves.append(_chain(points, step) + "Z")
        yield f'<path {ring.stroke} d="{"".join(curves)}"/>'
    yield "</g>"


def _chain(points: list[tuple[Point, Point]], step: float) -> str:
    """Join points with known tangents by cubic segments; `step` is the parameter between two of them."""
    third = step / 3
    (x, y), (dx, dy) = points[0]
    parts = [f"M{_near(x)} {_near(y)}"]
    for (u, v), (du, dv) in points[1:]:
        handles = (x + dx * third, y + dy * third, u - du * third, v - dv * third, u, v)
        parts.append("C" + " ".join(map(_near, handles)))
        x, y, dx, dy = u, v, du, dv
    return "".join(parts)


def _near(millimetres: float) -> str:
    return str(round(millimetres * UNITS))


def _shift(x: float, y: float) -> str:
    return f"translate({_near(x)} {_near(y)})"


def _pen(colour: str, width_millimetres: float) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="{width_millimetres * UNITS:g}"'


def _svg(size: Point, parts: Iterator[str]) -> str:
    wide, tall = size
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:g}mm" height="{tall:g}mm" '
    head += f'viewBox="0 0 {wide * UNITS:g} {tall * UNITS:g}">'
    return head + "".join(parts) + "</svg>"
