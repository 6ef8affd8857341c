# SPDX-License-Identifier: Apache-2.0
"""Content-addressed files: the name of a blob is the SHA-256 of its bytes, so it never changes.

A write is durable before its name exists: written beside, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Retryable

MAX_BYTES = 64 * 1024 * 1024  # a certificate is some 50 KB; this only stops runaways

# Room for a few certificates: a disk on which only a probe has room takes no credential any more.
LEAST_FREE_BYTES = 512 * 1024


class Blobs:
    """A folder of blobs, spread over 256 folders by the first byte of their digests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, content: bytes) -> str:
        """Store bytes; return their SHA-256 in hex. Storing them again is free.

        Raises:
            Retryable: `storage_full` or `storage_unavailable`; nothing was named.
        """
        if len(content) > MAX_BYTES:
            raise ValueError(f"a blob of {len(content)} bytes is beyond {MAX_BYTES}")
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        if path.exists():
            return digest
        try:
            self._write(path, content)
        except OSError as error:
            code = "storage_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage_unavailable"
            raise Retryable(code, f"blob {digest[:12]} could not be stored ({error.strerror})") from None
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a blob; raises KeyError if it is not there."""
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError:
            raise KeyError(digest) from None

    def has(self, digest: str) -> bool:
        """Return whether a blob is stored."""
        return self._path(digest).exists()

    def stored(self) -> Iterator[tuple[str, int, float]]:
        """Yield (name, bytes, seconds since 1970 of the last change) of every file; also unfinished ones.

        Raises:
            OSError: the folder cannot be read.
        """
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                        about = entry.stat()
                        yield entry.name, about.st_size, about.st_mtime

    def check_writable(self) -> None:
        """Raise OSError unless a file can be written and made durable here; for readiness."""
        about = os.statvfs(self._folder)
        if about.f_bavail * about.f_frsize < LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        probe = self._folder / f".probe-{secrets.token_hex(4)}"
        try:
            with probe.open("wb") as file:
                file.write(b"probe")
                file.flush()
                os.fsync(file.fileno())
        finally:
            # On a full disk the name may be made and its content not; a probe a second would fill the folder.
            probe.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            crash_point("pdf.written")
            beside.rename(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
