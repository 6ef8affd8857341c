# SPDX-License-Identifier: Apache-2.0
"""Write and read a `proof.zip`: the credential, its PDF, and the evidence that was saved beside them.

What is read is not believed: keys and DID documents inside prove only themselves and are not even looked at.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MOST_BYTES: Final = 20_000_000
MOST_MEMBERS: Final = 100
# The oldest date that the format knows: a bundle tells nothing of when it was made.
_NO_DATE: Final = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE: Final = 0o100644 << 16  # readable for all, where the format keeps Unix modes
_UNIX: Final = 3
_MOST_PDF: Final = 10_000_000
_MOST_TEXT: Final = 256 * 1024  # as `canonical.MAX_DOCUMENT_BYTES`


class BundleUnreadable(Exception):
    """The file is no bundle that can be read; the reason quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class ProofBundle:
    """What a bundle holds; None for what it lacks."""

    credential: bytes | None
    pdf: bytes | None
    status_list: bytes | None
    tlog_proof: str | None


def write_bundle(members: Mapping[str, bytes]) -> bytes:
    """Return a zip of these files; equal content gives equal bytes.

    Nothing is compressed: what a packer makes depends on its version, and the PDF is compressed already.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, _NO_DATE)
            member.create_system, member.external_attr = _UNIX, _PLAIN_FILE
            archive.writestr(member, members[name])
    return out.getvalue()


def is_bundle(content: bytes) -> bool:
    """Tell whether a file is a zip."""
    return content.startswith(b"PK\x03\x04")


def read_bundle(content: bytes) -> ProofBundle:
    """Unpack what is needed, each to its own limit, whatever the archive claims.

    Raises:
        BundleUnreadable: broken, too large, or with too many members.
    """
    if len(content) > MOST_BYTES:
        raise BundleUnreadable(f"the bundle has more than {MOST_BYTES // 1_000_000} MB")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if len(archive.infolist()) > MOST_MEMBERS:
                raise BundleUnreadable(f"the bundle has more than {MOST_MEMBERS} members")
            proof = _member(archive, "credential.tlog-proof", _MOST_TEXT)
            return ProofBundle(
                credential=_member(archive, "credential.json", _MOST_TEXT),
                pdf=_member(archive, "certificate.pdf", _MOST_PDF),
                status_list=_member(archive, "status.json", _MOST_TEXT),
                tlog_proof=proof.decode("utf-8", "replace") if proof is not None else None,
            )
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError):
        raise BundleUnreadable("the file is not a zip that can be read") from None


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes | None:
    try:
        member = archive.open(name)
    except KeyError:
        return None
    with member:
        # The size in the directory may be a lie: what is unpacked is counted.
        content = member.read(most + 1)
    if len(content) > most:
        raise BundleUnreadable(f"{name} in the bundle is larger than {most:,} bytes")
    return content
