# SPDX-License-Identifier: Apache-2.0
"""Strangers' PDFs in a real child process: what is found, and what is refused without harm."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pikepdf
import pytest

from conferral.adapters import pdf_reader_child
from conferral.adapters.pdf_reader import DEADLINE_SECONDS, PdfUnreadable, attached_credential, is_pdf

CREDENTIAL = b'{"id": "urn:uuid:00000000-0000-4000-8000-000000000000"}'


def pdf(change: Callable[[pikepdf.Pdf], None] = lambda _: None, **options: object) -> bytes:
    """Return a one-page PDF after a change."""
    made = pikepdf.new()
    made.add_blank_page()
    change(made)
    out = io.BytesIO()
    made.save(out, **options)  # type: ignore[arg-type]  # keyword arguments of pikepdf, passed through
    made.close()
    return out.getvalue()


def attach(made: pikepdf.Pdf, name: str = "credential.json", content: bytes = CREDENTIAL) -> None:
    """Attach a file as any program would."""
    made.attachments[name] = pikepdf.AttachedFileSpec(made, content, filename=name)


def attach_twice(made: pikepdf.Pdf) -> None:
    """Attach two files that both say to be the credential."""
    attach(made)
    attach(made, "other.json", b"{}")
    second = made.Root.Names.EmbeddedFiles
    for entry in list(second.get("/Names", [])) + [
        one for kid in second.get("/Kids", []) for one in kid.get("/Names", [])
    ]:
        if isinstance(entry, pikepdf.Dictionary):
            entry.F = entry.UF = pikepdf.String("credential.json")


def flood(made: pikepdf.Pdf) -> None:
    """Make more objects than a certificate ever has."""
    made.Root.Many = pikepdf.Array(
        [made.make_indirect(pikepdf.Dictionary(N=number)) for number in range(pdf_reader_child.MOST_OBJECTS)]
    )


def bomb(made: pikepdf.Pdf) -> None:
    """Attach 40 GB in 40 MB/1000: one flushed block of zeros, repeated."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    head, body = block[:2], block[2:]
    stream = pikepdf.Stream(made, b"")
    stream.write(head + body * 4_000, filter=pikepdf.Name.FlateDecode)
    specification = pikepdf.Dictionary(
        Type=pikepdf.Name.Filespec,
        F=pikepdf.String("credential.json"),
        EF=pikepdf.Dictionary(F=stream),
    )
    names = pikepdf.Array([pikepdf.String("credential.json"), made.make_indirect(specification)])
    made.Root.Names = pikepdf.Dictionary(EmbeddedFiles=pikepdf.Dictionary(Names=names))


def nest(made: pikepdf.Pdf) -> None:
    """Make a name tree that contains itself."""
    tree = made.make_indirect(pikepdf.Dictionary(Names=pikepdf.Array([])))
    tree.Kids = pikepdf.Array([tree])
    made.Root.Names = pikepdf.Dictionary(EmbeddedFiles=tree)


def test_the_attached_credential_is_found_byte_for_byte() -> None:
    """Other attachments do not matter."""

    def change(made: pikepdf.Pdf) -> None:
        attach(made)
        attach(made, "grades.csv", b"a,b")

    content = pdf(change)
    assert is_pdf(content)
    assert attached_credential(content) == CREDENTIAL


def test_a_pdf_without_credential_says_so() -> None:
    """No attachment is no error: it is just no credential."""
    assert attached_credential(pdf()) is None
    assert attached_credential(pdf(lambda made: attach(made, "readme.txt"))) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"%PDF-1.7\n" + b"x" * 1000, "not a PDF that can be read"),
        (b"%PDF-1.7\n" + b"x" * pdf_reader_child.MOST_BYTES, "more than 10 MB"),
        (pdf(attach, encryption=pikepdf.Encryption(owner="o", user="u")), "encrypted"),
        (pdf(attach_twice), "several attachments"),
        (pdf(flood), "objects"),
        (pdf(nest), "nested too deep"),
        (pdf(lambda made: attach(made, content=b"x" * 300_000)), "larger than 256 KiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_pdf_is_refused_with_its_reason(content: bytes, says: str) -> None:
    """The reason quotes nothing of the file."""
    with pytest.raises(PdfUnreadable, match=says):
        attached_credential(content)


def test_a_bomb_costs_one_child_and_no_more_than_its_limits() -> None:
    """What unpacks to gigabytes ends within the deadline, and the next file is read."""
    content = pdf(bomb)
    assert len(content) < 10_000_000
    began = time.monotonic()
    with pytest.raises(PdfUnreadable):
        attached_credential(content)
    assert time.monotonic() - began < DEADLINE_SECONDS + 3
    assert attached_credential(pdf(attach)) == CREDENTIAL


@pytest.mark.parametrize(
    ("attempt", "ends_with"),
    [
        ("bytearray(2_000_000_000)", "MemoryError"),
        ("open(sys.argv[1], 'wb', buffering=0).write(b'x')", "File too large"),
        ("[open('/dev/null') for _ in range(64)]", "Too many open files"),
    ],
)
def test_the_child_cannot_take_memory_write_files_or_open_many(
    tmp_path: Path, attempt: str, ends_with: str
) -> None:
    """The limits are the kernel's, whatever a parser is talked into."""
    code = (
        "import signal, sys; from conferral.adapters import pdf_reader_child as child; "
        f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); child.limit_resources(); {attempt}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert ends_with in done.stderr
