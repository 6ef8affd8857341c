# SPDX-License-Identifier: Apache-2.0
"""Rendering certificates: the parent's side of the renderer child.

It starts, watches, kills and replaces one child per `Renderer`; a bad template kills the child, never the
caller. It never imports typst: after one compile in a process, every compile in a forked copy of it hangs for
ever.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conferral.adapters.fonts import font_directories
from conferral.reliable.errors import Permanent, Retryable

ENGINE: Final = "typst/0.15.2"
# Wall clock for one request, the start of a child (0.2 s) included: a certificate takes 10 ms.
DEADLINE_SECONDS = 10.0
# No leak was seen over 1,500 documents; a child is replaced anyway before one could matter.
DOCUMENTS_PER_CHILD = 5_000
# What the child accepts and returns (`conferral.adapters.renderer`), plus a header.
REQUEST_BYTES = 16 * 1024 * 1024
REPLY_BYTES = 20 * 1024 * 1024
HEADER_BYTES = 64 * 1024
# A polite end: the child leaves at the end of its input.
CLOSE_SECONDS = 1.0
_CHUNK = 256 * 1024
_PREFIX = 4
_LAST_WORDS_BYTES = 4096
_ERROR_KIND = re.compile(rb"^(?:\w+\.)*(\w+Error|memory allocation|thread panicked)\b", re.MULTILINE)

# Nothing of ours, so no secret can reach a template. Package downloads end at a dead port; one thread and few
# malloc arenas keep the address space of a machine with many cores inside the child's limit.
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "RAYON_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True, slots=True)
class RenderedPdf:
    """A document: its bytes, their SHA-256 in hexadecimal and the CPU milliseconds they took."""

    content: bytes
    sha256: str
    cpu_ms: float


class Renderer:
    """One renderer child, started at the first request and replaced when it dies, hangs or is old.

    Safe under threads (one request at a time) and across fork: a forked process forgets the parent's child
    and starts its own.
    """

    engine: Final = ENGINE

    def __init__(self, templates_dir: Path, *, font_dirs: Sequence[Path] = ()) -> None:
        self._command = [sys.executable, "-I", "-B", "-m", "conferral.adapters.renderer", str(templates_dir)]
        self._command += [str(folder) for folder in font_directories(font_dirs)]
        self._child: _Child | None = None
        self._lock = threading.Lock()
        _renderers.add(self)

    def render(self, template_version: str, data: Mapping[str, Any], *, timestamp: int) -> RenderedPdf:
        """Return the document of one credential: PDF/A-3b, the same bytes for the same arguments.

        Args:
            template_version: SHA-256 of a materialised version, 64 hexadecimal digits.
            data: the design's data contract (`conferral.adapters.design_store`), JSON values only.
            timestamp: the document's date, in whole seconds since 1970 (UTC).

        Raises:
            Retryable: `render_timeout`, `render_crashed`.
            Permanent: `text_unprintable` (evidence: the characters' code points), `template_invalid`.
        """
        reply, content = self._request("render", template_version, data, timestamp=timestamp, format="pdf")
        return RenderedPdf(content=content, sha256=reply["sha256"], cpu_ms=reply["cpu_ms"])

    def preview(
        self,
        template_version: str,
        data: Mapping[str, Any],
        *,
        timestamp: int,
        image_format: str = "png",
        ppi: int = 96,
        page: int = 1,
    ) -> bytes:
        """Return one page as PNG (at most 192 pixels an inch) or SVG; errors as in `render`."""
        options = {"format": image_format, "ppi": ppi, "page": page}
        return self._request("preview", template_version, data, timestamp=timestamp, **options)[1]

    def ping(self) -> None:
        """Return when the child answers; start it if need be."""
        self._request("ping", "", {}, timestamp=0)

    def close(self) -> None:
        """End the child; a later request starts another one."""
        with self._lock:
            self._discard()

    def _request(
        self, op: str, template: str, data: Mapping[str, Any], **options: Any
    ) -> tuple[dict[str, Any], bytes]:
        request = {"op": op, "template": template, "data": data, **options}
        frame = json.dumps(request, ensure_ascii=False, allow_nan=False).encode()
        if len(frame) > REQUEST_BYTES:
            raise Permanent("template_invalid", f"the document's data is larger than {REQUEST_BYTES} bytes")
        with self._lock:
            if self._child is not None and self._child.has_died():
                self._discard()
            if self._child is None:
                self._child = _Child(self._command)
            try:
                reply, content = self._child.exchange(len(frame).to_bytes(_PREFIX, "big") + frame)
            except BaseException:
                # Half an answer may be in the pipe: whatever interrupted us, this child is not asked again.
                self._discard(at_once=True)
                raise
            if self._child.answered >= DOCUMENTS_PER_CHILD:
                self._discard()
        if not reply["ok"]:
            raise _refusal(reply)
        return reply, content

    def _discard(self, *, at_once: bool = False) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(at_once=at_once)

    def _after_fork(self) -> None:
        # The lock may have been held by a thread that does not exist here, and the child belongs to the
        # parent.
        child, self._child, self._lock = self._child, None, threading.Lock()
        if child is not None:
            child.abandon()


_renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _forget_children() -> None:
    for renderer in list(_renderers):
        renderer._after_fork()  # noqa: SLF001 - this module's own hook


os.register_at_fork(after_in_child=_forget_children)


def _refusal(reply: Mapping[str, Any]) -> Permanent:
    characters = sorted(set(reply.get("characters", "")))
    evidence = {"characters": [f"U+{ord(character):04X}" for character in characters]} if characters else {}
    return Permanent(reply["code"], reply["detail"], evidence=evidence)


class _Child:
    """One running child and the pipes to it."""

    def __init__(self, command: Sequence[str]) -> None:
        environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
        self.answered = 0
        self._last_words = b""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # a pipe, since the child may write no file; drained and dropped
            bufsize=0,
            close_fds=True,
            env=environment,
        )
        for stream in self._streams():
            os.set_blocking(stream.fileno(), False)

    def exchange(self, frame: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request and return the reply's header and bytes, within `DEADLINE_SECONDS`."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        received = bytearray()
        unsent = memoryview(frame)
        stdin, stdout, stderr = self._streams()
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            selector.register(stderr, selectors.EVENT_READ)
            while (reply := _complete(received)) is None:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready and time.monotonic() >= deadline:
                    raise Retryable("render_timeout", f"no document within {DEADLINE_SECONDS:g} seconds")
                for key, _ in ready:
                    if key.fileobj is stdin:
                        unsent = unsent[self._write(unsent) :]
                        if not unsent:
                            selector.unregister(stdin)
                    elif not (chunk := os.read(key.fd, _CHUNK)):
                        selector.unregister(key.fileobj)
                        if key.fileobj is stdout:
                            raise self._death()
                    elif key.fileobj is stdout:
                        received += chunk
                    else:
                        self._last_words = (self._last_words + chunk)[-_LAST_WORDS_BYTES:]
        self.answered += 1
        return reply

    def _write(self, unsent: memoryview) -> int:
        try:
            return os.write(self._streams()[0].fileno(), unsent[:_CHUNK])
        except BrokenPipeError:
            raise self._death() from None

    def _death(self) -> Retryable:
        try:
            status = self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            status = 0
        if status == -signal.SIGXCPU:
            return Retryable("render_timeout", "the document used up its CPU seconds")
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        # Only the kind of error: its text may hold data of the document.
        kinds = _ERROR_KIND.findall(self._last_words)
        reason = f"{name}, {kinds[-1].decode()}" if kinds else name
        return Retryable("render_crashed", f"the renderer died ({reason})", evidence={"status": status})

    def has_died(self) -> bool:
        """Tell whether the child ended while nobody asked it anything."""
        return self._process.poll() is not None

    def end(self, *, at_once: bool) -> None:
        """Let the child end at the end of its input, or kill it; it is waited for in any case."""
        stdin, stdout, stderr = self._streams()
        stdin.close()
        if at_once:
            self._process.kill()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()
        stderr.close()

    def abandon(self) -> None:
        """Forget a child of the process we were forked from; our copies of its pipes would keep it alive."""
        for stream in self._streams():
            stream.close()
        # It is not ours to wait for; without a status, Popen would complain that it is still running.
        self._process.returncode = 0

    def _streams(self) -> tuple[Any, Any, Any]:
        return self._process.stdin, self._process.stdout, self._process.stderr


def _complete(received: bytearray) -> tuple[dict[str, Any], bytes] | None:
    if len(received) < _PREFIX:
        return None
    header_end = _PREFIX + int.from_bytes(received[:_PREFIX], "big")
    if header_end > HEADER_BYTES:
        raise Retryable("render_crashed", "the renderer's answer is no frame")
    if len(received) < header_end:
        return None
    header: dict[str, Any] = json.loads(received[_PREFIX:header_end])
    size = int(header.get("bytes", 0))
    if size > REPLY_BYTES:
        raise Retryable("render_crashed", "the renderer's answer is too large")
    if len(received) < header_end + size:
        return None
    return header, bytes(received[header_end : header_end + size])
