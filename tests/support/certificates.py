# SPDX-License-Identifier: Apache-2.0
"""Data to render certificates with in tests, and the names that break certificate software."""

from __future__ import annotations

from typing import Any

from conferral.adapters.design_store import sample_of
from conferral.adapters.qr import qr_svg

TIMESTAMP = 1_790_000_000

# Each has broken some product: length, direction, shaping, stacking marks, apostrophes, markup, East Asia.
STRESS_NAMES = {
    "accents": "Łukasz Żółć-Bērziņš",
    "arabic": "محمد عبد الرحمن الخوارزمي",
    "arabic and latin": "محمد Singh",
    "armenian": "Արմեն Պետրոսյան",
    "bengali": "রবীন্দ্রনাথ ঠাকুর",
    "chinese": "王小明",
    "cyrillic": "Наталія Ґалаґан",
    "devanagari": "प्रियंका श्रीवास्तव",
    "ethiopic": "አበበ ቢቂላ",
    "georgian": "ნინო ბერიძე",
    "greek": "Ελευθέριος Παπαδόπουλος",
    "hangul": "김민준",
    "hebrew": "נועה בן־דוד",
    "japanese": "さくら 山田",
    "khmer": "សុខ សុភា",
    "markup": "#panic() *Robert* $x$ @ref <label> `'; --",
    "one letter": "Ö",
    "sixty": "Maria Aparecida Conceição dos Santos Albuquerque e Melo Leal",
    "tamil": "கணியன் பூங்குன்றனார்",
    "thai": "สมชาย ใจดี",
    "unbroken": "Wolfeschlegelsteinhausenbergerdorffwelchevoralternwarengewissenhaft",
    "vietnamese": "Nguyễn Thị Ánh Nguyệt",
    "hundred and twenty": (
        "Pablo Diego José Francisco de Paula Juan Nepomuceno María de los Remedios Cipriano "
        "de la Santísima Trinidad Ruiz y Pic"
    ),
}


def certificate_data(**changes: Any) -> dict[str, Any]:
    """Return the diploma's sample data; keywords change the credential, or the document."""
    data = sample_of("diploma")
    for key, value in changes.items():
        if key in {"language", "test_mode", "theme"}:
            data[key] = value
        elif value is None:
            data["credential"].pop(key, None)
        else:
            data["credential"][key] = value
    data["qr"] = qr_svg(data["credential"]["verification_url"])
    return data
