# SPDX-License-Identifier: Apache-2.0
"""The renderer child: turns a template version and data into a PDF or a picture.

It is started by `conferral.adapters.pdf` with exec, never with fork: a process in which typst has compiled
once hangs in every forked copy of itself. It is the only module that imports typst, and nothing may import
it.

Frames, both ways: a 4-byte big-endian length and UTF-8 JSON; a reply that says `bytes: n` is followed by n
bytes. It reads template versions and fonts, writes nothing, knows no secret and ends at the end of its input.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

# An allocation beyond it aborts this process alone; a certificate needs about 90 MB.
ADDRESS_SPACE_BYTES = 1_500_000_000
# Sockets and fonts included; typst maps its fonts and closes them.
OPEN_FILES = 64
# A healthy certificate takes 10 ms; an endless template is stopped here, before the parent's wall clock.
CPU_SECONDS_PER_REQUEST = 5
# A photograph of 5 MB as base64, twice, and the rest of the data.
REQUEST_BYTES = 16 * 1024 * 1024
REPLY_BYTES = 20 * 1024 * 1024
# A certificate has one or two pages; a template that runs away is refused before it fills a disk.
PAGES = 10
# A new compiler scans all fonts (about 40 ms), so the ones in use are kept; each holds a few hundred kB.
COMPILERS = 32
# Enough for print proofs; a picture for the screen has 96.
PPI = 192
# A diagnostic longer than this helps nobody.
DETAIL_CHARACTERS = 500
# Of a text without glyphs, this many characters are named.
CHARACTERS = 100

ENTRY = "entry.typ"
_TEMPLATE = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"the text `\"(.*)\"` could not be displayed", re.DOTALL)
# The file inside the version and the line; what lies above it is a path of this host.
_WHERE = re.compile(r"┌─ (?:\S*/[0-9a-f]{64}/)?(\S+:\d+:\d+)")
_PAGE_COUNT = re.compile(rb"/Type\s*/Pages\s*/Count\s+(\d+)|/Count\s+(\d+)\s*/Kids")


class Refused(Exception):
    """A request that cannot be answered with bytes."""

    def __init__(self, code: str, detail: str, characters: str = "") -> None:
        self.code = code
        self.detail = detail
        self.characters = characters
        super().__init__(code)


def main() -> None:
    """Answer requests until the input ends: `-m conferral.adapters.renderer <templates> [<fonts> ...]`."""
    limit_resources()
    requests, replies = _protocol_streams()
    templates = Templates(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
    while (request := _read_request(requests)) is not None:
        _allow_cpu()
        header, content = _answer(templates, request)
        frame = json.dumps(header, ensure_ascii=False).encode()
        replies.write(len(frame).to_bytes(4, "big") + frame + content)
        replies.flush()


def limit_resources() -> None:
    """Bound what this process may use, before anything large is imported."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for kind, wanted in ((resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES)):
        hard = resource.getrlimit(kind)[1]
        bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (bound, bound))


def _allow_cpu() -> None:
    # RLIMIT_CPU counts the life of the process: a fixed limit would kill a healthy child of old age.
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = spent + CPU_SECONDS_PER_REQUEST
    resource.setrlimit(
        resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )


def _protocol_streams() -> tuple[IO[bytes], IO[bytes]]:
    # Descriptor 1 is moved aside and points at stderr from now on: a stray print cannot corrupt a frame.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, replies


def _read_request(requests: IO[bytes]) -> dict[str, Any] | None:
    prefix = requests.read(4)
    if len(prefix) < 4:  # noqa: PLR2004 - the frame's length prefix
        return None
    length = int.from_bytes(prefix, "big")
    if length > REQUEST_BYTES:
        return None
    body = requests.read(length)
    return json.loads(body) if len(body) == length else None


def _answer(templates: Templates, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    started = time.process_time()
    try:
        content = b"" if request["op"] == "ping" else templates.compile(request)
    except Refused as refused:
        detail = without_values(refused.detail, request.get("data"))[:DETAIL_CHARACTERS]
        return {"ok": False, "code": refused.code, "detail": detail, "characters": refused.characters}, b""
    spent = (time.process_time() - started) * 1000
    digest = hashlib.sha256(content).hexdigest()
    return {"ok": True, "bytes": len(content), "sha256": digest, "cpu_ms": round(spent, 3)}, content


class Templates:
    """The compilers of the template versions last used."""

    def __init__(self, root: Path, font_folders: list[Path]) -> None:
        import typst

        self._typst = typst
        self._root = root
        self._font_folders = font_folders
        self._compilers: OrderedDict[str, tuple[Any, bytes]] = OrderedDict()

    def compile(self, request: dict[str, Any]) -> bytes:
        """Return the document's bytes: PDF/A-3b, or one page as PNG or SVG."""
        compiler, entry = self._compiler(str(request["template"]))
        # As a file and not as `sys_inputs`, which belong to the compiler's library: with another library
        # typst lays out anew what all documents of a version have in common, for twice the time.
        data = json.dumps(request["data"], ensure_ascii=False).encode()
        form = request.get("format", "pdf")
        options: dict[str, Any] = {
            "input": {"main.typ": entry, "data.json": data},
            "format": form,
            "timestamp": int(request["timestamp"]),
        }
        if form == "pdf":
            options["pdf_standards"] = ["a-3b"]
        elif form == "png":
            options["ppi"] = min(float(request.get("ppi", 96)), PPI)
        try:
            output = compiler.compile(**options)
        except self._typst.TypstError as error:
            raise _refusal(error) from error
        return _bounded(_page(output, request) if form != "pdf" else output)

    def _compiler(self, template: str) -> tuple[Any, bytes]:
        if not _TEMPLATE.fullmatch(template):
            raise Refused("template_invalid", "a template version is named by 64 hexadecimal digits")
        if template in self._compilers:
            self._compilers.move_to_end(template)
            return self._compilers[template]
        folder = self._root / template
        _check_regular(folder)
        compiler = self._typst.Compiler(
            root=str(folder),
            font_paths=[str(path) for path in self._font_folders],
            ignore_system_fonts=True,
            # Packages are looked for where there are none, and the proxy variables lead nowhere.
            package_path=str(folder / "packages"),
            package_cache_path=str(folder / "packages"),
        )
        self._compilers[template] = found = compiler, (folder / ENTRY).read_bytes()
        if len(self._compilers) > COMPILERS:
            self._compilers.popitem(last=False)
        return found


def _check_regular(folder: Path) -> None:
    # typst keeps `..` and absolute paths inside the root, but follows a symbolic link out of it.
    if folder.is_symlink() or not (folder / ENTRY).is_file():
        raise Refused("template_invalid", "the template version is not materialised on this host")
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused("template_invalid", "a template version holds regular files only")


def _page(output: bytes | list[bytes], request: dict[str, Any]) -> bytes:
    pages = [output] if isinstance(output, bytes) else output
    number = int(request.get("page", 1))
    if len(pages) > PAGES or not 1 <= number <= len(pages):
        raise Refused("template_invalid", f"page {number} of {len(pages)}; at most {PAGES} pages are printed")
    return pages[number - 1]


def _bounded(content: bytes) -> bytes:
    if len(content) > REPLY_BYTES:
        raise Refused("template_invalid", f"the document has more than {REPLY_BYTES} bytes")
    if content.startswith(b"%PDF") and (found := _PAGE_COUNT.search(content)):
        count = int(found[1] or found[2])
        if count > PAGES:
            raise Refused("template_invalid", f"the document has {count} pages; at most {PAGES} are printed")
    return content


def _refusal(error: Any) -> Refused:
    message = str(getattr(error, "message", error))
    if found := _UNPRINTABLE.search(message):
        return Refused("text_unprintable", "no font has a glyph for part of the text", found[1][:CHARACTERS])
    where = _WHERE.search(str(getattr(error, "diagnostic", "")))
    return Refused("template_invalid", f"{message} ({where[1]})" if where else message)


def without_values(detail: str, data: Any) -> str:
    """Blank out every value of the data: what is stored about a failure must not hold a name."""
    for value in sorted(_strings(data), key=len, reverse=True):
        detail = detail.replace(value, "…")
    return detail


def _strings(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set().union(*(_strings(value) for value in data.values()))
    if isinstance(data, list):
        return set().union(*(_strings(value) for value in data))
    shortest = 3  # shorter ones are words of typst's own messages
    return {data} if isinstance(data, str) and len(data) >= shortest else set()


if __name__ == "__main__":
    main()
