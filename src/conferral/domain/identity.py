# SPDX-License-Identifier: Apache-2.0
"""How a credential names its recipient without telling the address.

Open Badges 3.0 IdentityObject: a salted SHA-256 of the e-mail address. Whoever knows the address can
confirm it; nobody can read it. This room must never see more than it hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata

SALT_BYTES = 16
"""One salt a credential, so that two credentials of one person cannot be linked by the hash."""


def normalise_email(address: str) -> str:
    """Return the spelling that is hashed: NFC, lower-cased, without surrounding white space."""
    return unicodedata.normalize("NFC", address).strip().lower()


def email_salt(random_bytes: bytes) -> str:
    """Write 16 random bytes as the salt of one credential, 32 hex digits."""
    if len(random_bytes) != SALT_BYTES:
        raise ValueError("a salt has 16 bytes")
    return random_bytes.hex()


def identity_hash(email: str, salt: str) -> str:
    """Return `sha256$` and the hex SHA-256 of the normalised address followed by the salt, both UTF-8."""
    hashed = hashlib.sha256(normalise_email(email).encode() + salt.encode()).hexdigest()
    return f"sha256${hashed}"


def is_identity_of(email: str, salt: str, expected: str) -> bool:
    """Tell whether an address is the one behind an identity hash."""
    return hmac.compare_digest(identity_hash(email, salt).encode(), expected.encode())
