# SPDX-License-Identifier: Apache-2.0
"""QR codes for the printed verification address, as SVG text that a design places.

It only draws: what the address says is decided by the caller.
"""

from __future__ import annotations

import re

import zxingcpp

# A version-10 symbol at level M (57 modules) still has 0.44 mm modules at 25 mm, which telephones read.
URL_CHARACTERS = 200
# The colour a design may replace by its own dark ink.
INK = "#000000"

_SIZE = re.compile(r'<svg width="(\d+)" height="(\d+)"')
_MODULES = re.compile(r'<path d="([MmHhVvZz0-9 -]+)"')


def qr_svg(url: str) -> str:
    """Draw `url` as a QR symbol of error correction level M (ISO/IEC 18004).

    The SVG's view box is the bare symbol, one unit a module; the design leaves the quiet zone of four
    modules.

    Raises:
        ValueError: The address is empty or longer than `URL_CHARACTERS`.
    """
    if not 0 < len(url) <= URL_CHARACTERS:
        raise ValueError(f"a verification address has 1 to {URL_CHARACTERS} characters, not {len(url)}")
    symbol = zxingcpp.create_barcode(url, zxingcpp.BarcodeFormat.QRCode, ec_level="M")
    drawn = zxingcpp.write_barcode_to_svg(symbol, add_quiet_zones=False)
    size = _SIZE.search(drawn)
    modules = _MODULES.search(drawn)
    if size is None or modules is None:
        raise ValueError("the QR library drew no symbol")
    width, height = size.groups()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">'
        f'<path fill="{INK}" d="{modules[1]}"/></svg>'
    )
