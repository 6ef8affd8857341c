# SPDX-License-Identifier: Apache-2.0
"""The renderer child under attack, under load and across fork: one failed render, and never more."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from conferral.adapters import pdf
from conferral.adapters.design_store import materialise
from conferral.adapters.pdf import Renderer
from conferral.reliable.errors import Permanent, Retryable
from support.certificates import TIMESTAMP, certificate_data

FINE = '#let data = json("/data.json")\n#set document(title: [x])\nHello #data.name'
MEMORY_BOMB = '#let text = "x"\n#for _ in range(60) { text = text + text }\n#text.len()'
CPU_BOMB = "#{ let sum = 0; for a in range(100000) { for b in range(100000) { sum += 1 } } }"
# What a forked process may take; a hang is for ever.
FORK_SECONDS = 30


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Return a folder for template versions."""
    return tmp_path / "templates"


@pytest.fixture
def renderer(templates: Path) -> Iterator[Renderer]:
    """Return a renderer that is closed in the end."""
    one = Renderer(templates)
    yield one
    one.close()


def template(templates: Path, source: str, **files: str) -> str:
    """Write a template version as expert mode would, and return its name."""
    version = hashlib.sha256(source.encode()).hexdigest()
    folder = templates / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entry.typ").write_text(source)
    for name, content in files.items():
        (folder / name).write_text(content)
    return version


def render(renderer: Renderer, version: str, name: str = "World") -> bytes:
    """Render a small document."""
    return renderer.render(version, {"name": name}, timestamp=TIMESTAMP).content


def child_pid(renderer: Renderer) -> int:
    """Return the pid of the running child."""
    assert renderer._child is not None
    return renderer._child._process.pid


def finished(process: BaseProcess) -> int | None:
    """Wait for a forked process and return its exit status; end one that hangs, so that the test can fail."""
    process.join(FORK_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def wait_until(is_true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_memory_bomb_is_one_failed_render(renderer: Renderer, templates: Path) -> None:
    """The child dies of its own limit, and the next document is printed by another one."""
    with pytest.raises(Retryable) as refused:
        render(renderer, template(templates, MEMORY_BOMB))
    assert refused.value.code == "render_crashed"
    assert render(renderer, template(templates, FINE)).startswith(b"%PDF")


def test_a_cpu_bomb_is_stopped_by_its_cpu_seconds(renderer: Renderer, templates: Path) -> None:
    """A template without an end is stopped before the wall clock, however busy the machine is."""
    with pytest.raises(Retryable) as refused:
        render(renderer, template(templates, CPU_BOMB))
    assert refused.value.code == "render_timeout"
    assert render(renderer, template(templates, FINE)).startswith(b"%PDF")


def test_the_wall_clock_ends_a_render(
    renderer: Renderer, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that does not answer in time is killed and replaced."""
    render(renderer, template(templates, FINE))
    before = child_pid(renderer)
    monkeypatch.setattr(pdf, "DEADLINE_SECONDS", 0.5)
    with pytest.raises(Retryable) as refused:
        render(renderer, template(templates, CPU_BOMB))
    assert refused.value.code == "render_timeout"
    assert not Path(f"/proc/{before}").exists()
    monkeypatch.undo()
    assert render(renderer, template(templates, FINE)).startswith(b"%PDF")


def test_a_child_killed_at_work_is_one_failed_render(renderer: Renderer, templates: Path) -> None:
    """The kernel's out-of-memory killer costs one attempt."""
    render(renderer, template(templates, FINE))
    pid = child_pid(renderer)
    bomb = template(templates, CPU_BOMB)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(render, renderer, bomb)
        spent = Path(f"/proc/{pid}/stat").read_text().split()[13]
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[13] > spent)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Retryable, match="SIGKILL") as refused:
            pending.result(FORK_SECONDS)
    assert refused.value.code == "render_crashed"
    assert render(renderer, template(templates, FINE)).startswith(b"%PDF")


def test_a_child_killed_at_rest_costs_nothing(renderer: Renderer, templates: Path) -> None:
    """A death that nobody waited for is noticed before the next request."""
    version = template(templates, FINE)
    first = render(renderer, version)
    os.kill(child_pid(renderer), signal.SIGKILL)
    wait_until(lambda: renderer._child is None or renderer._child.has_died())
    assert render(renderer, version) == first


def test_an_old_child_is_replaced(
    renderer: Renderer, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leak in the engine could never grow for longer than so many documents."""
    monkeypatch.setattr(pdf, "DOCUMENTS_PER_CHILD", 2)
    version = template(templates, FINE)
    render(renderer, version)
    before = child_pid(renderer)
    render(renderer, version)
    render(renderer, version)
    assert child_pid(renderer) != before


def test_cpu_seconds_are_counted_for_each_request(renderer: Renderer, templates: Path) -> None:
    """A healthy child does not die of old age: its limit moves with what it has used."""
    version = template(templates, "#let sum = 0\n#for a in range(250000) { sum += a }\n#sum")
    pids = set()
    spent = 0.0
    while spent < 7_000:
        reply = renderer.render(version, {"name": str(spent)}, timestamp=TIMESTAMP)
        spent += max(reply.cpu_ms, 30)
        pids.add(child_pid(renderer))
        version = template(
            templates, f"#let sum = {int(spent)}\n#for a in range(250000) {{ sum += a }}\n#sum"
        )
    assert len(pids) == 1


def test_nothing_outside_the_version_can_be_read(renderer: Renderer, templates: Path) -> None:
    """Paths stay inside the version's folder, and a version with a symbolic link is refused whole."""
    outside = templates.parent / "outside.txt"
    outside.write_text("canary")
    for path in ("../outside.txt", "/../outside.txt", str(outside)):
        with pytest.raises(Permanent) as refused:
            render(renderer, template(templates, f'#read("{path}")'))
        assert refused.value.code == "template_invalid"
    version = template(templates, '#read("link.txt")')
    (templates / version / "link.txt").symlink_to(outside)
    with pytest.raises(Permanent, match="regular files only"):
        render(renderer, version)


def test_packages_are_not_fetched(renderer: Renderer, templates: Path) -> None:
    """A template that asks for a package fails at once: the way to the network ends at a dead port."""
    started = time.monotonic()
    with pytest.raises(Permanent) as refused:
        render(renderer, template(templates, '#import "@preview/cetz:0.3.1"'))
    assert refused.value.code == "template_invalid"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("version", ["../../etc", "0" * 63, "0" * 64, ""])
def test_a_version_that_is_not_here_is_refused(version: str, renderer: Renderer, templates: Path) -> None:
    """The name of a version is never a path."""
    templates.mkdir(exist_ok=True)
    with pytest.raises(Permanent) as refused:
        render(renderer, version)
    assert refused.value.code == "template_invalid"


def test_more_pages_than_a_certificate_has_are_refused(renderer: Renderer, templates: Path) -> None:
    """A template that runs away is refused before it fills a disk."""
    version = template(templates, "#set document(title: [x])\n#for _ in range(11) [a #pagebreak()]")
    with pytest.raises(Permanent, match="at most 10"):
        render(renderer, version)
    with pytest.raises(Permanent, match="at most 10"):
        renderer.preview(version, {}, timestamp=TIMESTAMP)


def test_a_character_without_a_font_is_named_by_its_code_point(renderer: Renderer, templates: Path) -> None:
    """The failure says which character; the name it stands in is stored nowhere."""
    with pytest.raises(Permanent) as refused:
        render(renderer, template(templates, FINE), "Secret Person 😀")
    assert refused.value.code == "text_unprintable"
    assert refused.value.evidence == {"characters": ["U+1F600"]}
    assert "Secret" not in str(refused.value)


def test_a_template_error_names_its_line_and_no_person(renderer: Renderer, templates: Path) -> None:
    """What is stored about a failure holds neither data nor paths of the host."""
    version = template(templates, '#let data = json("/data.json")\n#panic("no " + data.name)')
    with pytest.raises(Permanent) as refused:
        render(renderer, version, "Secret Person")
    assert refused.value.code == "template_invalid"
    assert "main.typ:2" in refused.value.detail
    assert "Secret" not in refused.value.detail
    assert str(templates) not in refused.value.detail


def test_data_beyond_the_limit_is_refused(renderer: Renderer, templates: Path) -> None:
    """A request larger than the child takes never leaves the parent."""
    with pytest.raises(Permanent, match="larger"):
        render(renderer, template(templates, FINE), "x" * (pdf.REQUEST_BYTES + 1))


def test_large_requests_and_replies_pass_the_pipes(renderer: Renderer, templates: Path) -> None:
    """Megabytes in both directions do not lock parent and child into waiting for each other."""
    source = '#let data = json("/data.json")\n#set document(title: [x])\n#data.name.len()'
    assert render(renderer, template(templates, source), "x" * 8_000_000).startswith(b"%PDF")
    colours = "#rect(width: 100%, height: 100%, fill: gradient.conic(..color.map.rainbow))"
    large = template(templates, f"#set page(width: 1200pt, height: 1200pt)\n{colours}")
    assert len(renderer.preview(large, {}, timestamp=1, ppi=192)) > 500_000


def test_threads_share_one_child(renderer: Renderer, templates: Path) -> None:
    """One request at a time; nobody gets another one's document."""
    version = template(templates, FINE)
    names = [f"Person {number}" for number in range(24)]
    alone = {name: render(renderer, version, name) for name in names}
    with ThreadPoolExecutor(8) as pool:
        together = dict(
            zip(names, pool.map(lambda name: render(renderer, version, name), names), strict=True)
        )
    assert together == alone


def test_the_child_knows_no_secret(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the child is ours, word for word."""
    monkeypatch.setenv("CONFERRAL_SECRETS_KEY_FILE", "/secret")
    renderer.ping()
    environment = Path(f"/proc/{child_pid(renderer)}/environ").read_bytes().split(b"\0")
    names = {line.split(b"=")[0].decode() for line in environment if line}
    assert names == {"PATH", *pdf._ENVIRONMENT}


def test_a_stray_print_cannot_corrupt_a_frame() -> None:
    """Descriptor 1 is not the protocol's: what libraries print goes to stderr."""
    code = (
        "import sys; from conferral.adapters import renderer as r; q, p = r._protocol_streams();"
        "print('stray', flush=True); p.write(b'frame'); p.flush()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"frame", b"stray\n")


def test_the_child_ends_with_its_parent(templates: Path) -> None:
    """A worker that is killed leaves no child behind."""
    code = (
        "import sys; from pathlib import Path; from conferral.adapters.pdf import Renderer;"
        f"r = Renderer(Path({str(templates)!r})); r.ping(); print(r._child._process.pid, flush=True);"
        "sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        wait_until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("is_used_before", [False, True])
def test_a_forked_process_renders(is_used_before: bool, renderer: Renderer, templates: Path) -> None:
    """Celery forks its workers: a renderer made, or even used, before the fork works on both sides of it."""
    version = materialise(templates, "diploma", {})
    data = certificate_data()
    if is_used_before:
        renderer.ping()
        before = child_pid(renderer)
    forked, answers = [], multiprocessing.get_context("fork").SimpleQueue()

    def work() -> None:
        digests = [renderer.render(version, data, timestamp=TIMESTAMP).sha256 for _ in range(3)]
        answers.put((child_pid(renderer), digests))
        renderer.close()

    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        forked.append(process)
    assert [finished(process) for process in forked] == [0, 0]
    found = [answers.get() for _ in forked]
    mine = renderer.render(version, data, timestamp=TIMESTAMP).sha256
    assert [digests for _, digests in found] == [[mine] * 3] * 2
    assert len({child_pid(renderer), *(pid for pid, _ in found)}) == 3
    if is_used_before:
        assert child_pid(renderer) == before


def test_a_process_forked_during_a_render_renders(renderer: Renderer, templates: Path) -> None:
    """A lock held by a thread at the moment of the fork is not inherited as held for ever."""
    slow, fine = template(templates, CPU_BOMB), template(templates, FINE)
    renderer.ping()
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(render, renderer, slow)
        wait_until(renderer._lock.locked)
        process = multiprocessing.get_context("fork").Process(target=render, args=(renderer, fine))
        process.start()
        assert finished(process) == 0
        os.kill(child_pid(renderer), signal.SIGKILL)
        with pytest.raises(Retryable):
            stopped.result(FORK_SECONDS)


def test_a_version_is_written_once_by_many_processes(templates: Path) -> None:
    """Any number of processes may materialise a version; its files are read-only, nothing stays beside."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=materialise, args=(templates, "diploma", {})) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        assert finished(process) == 0
    version = materialise(templates, "diploma", {})
    assert [path.name for path in templates.iterdir()] == [version]
    files = [path for path in (templates / version).rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
    assert json.loads((templates / version / "theme.json").read_text())["orientation"] == "landscape"
