# SPDX-License-Identifier: Apache-2.0
"""The public address of a credential: 128 random bits that stand in the QR code.

Never derived from an id, never a counter: whoever holds the token may open the page, nobody can guess one.
"""

from __future__ import annotations

from conferral.domain.did import BASE58, base58_number

TOKEN_BYTES = 16
TOKEN_CHARACTERS = 22
"""58**22 > 2**128: every value fits, and all tokens have one length."""


def public_token(random_bytes: bytes) -> str:
    """Write 16 random bytes as 22 base58btc digits, padded on the left with `1`."""
    if len(random_bytes) != TOKEN_BYTES:
        raise ValueError("a public token is made of 16 random bytes")
    return base58_number(int.from_bytes(random_bytes, "big")).rjust(TOKEN_CHARACTERS, "1")


def is_public_token(text: str) -> bool:
    """Tell whether a text has the shape of a token, before anything is looked up."""
    return len(text) == TOKEN_CHARACTERS and all(character in BASE58 for character in text)
