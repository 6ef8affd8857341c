# SPDX-License-Identifier: Apache-2.0
"""Bad input at the doors of a real `conferral up`: precise answers, no trace, little memory, no harm."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.installation import Installation, installed

ISSUE = "/credentials/issue"
MIB = 1 << 20
SMALL_REQUESTS = 8  # enough that each of the web workers has answered some
MOST_MEMORY = 50 * MIB
GOOD = {
    "template_id": "diploma",
    "recipient": {"name": "Ada Lovelace", "email": "ada@alumni.example"},
    "fields": {"course": "Engines"},
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Yield a running installation; afterwards nothing that the web server logged may be a trace."""
    with installed(tmp_path_factory.mktemp("house")) as running:
        yield running
        assert "Traceback" not in (running.folder / "logs" / "web.log").read_text()


def changed(**members: Any) -> bytes:
    """Return a good request with members changed; `recipient__name` changes one inside."""
    document = json.loads(json.dumps(GOOD))
    for name, value in members.items():
        place, _, inner = name.partition("__")
        if inner:
            document[place][inner] = value
        else:
            document[place] = value
    return json.dumps(document).encode()


def ask(
    house: Installation, method: str, path: str, body: Any = None, **headers: str | None
) -> tuple[int, dict[str, Any]]:
    """Send exact bytes; return the status and the problem, whose shape is checked."""
    sent = {"Authorization": f"Bearer {house.api_key}", "Content-Type": "application/json"}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    merged = {name: value for name, value in {**sent, **given}.items() if value is not None}
    connection = http.client.HTTPConnection("127.0.0.1", house.ports[0], timeout=60)
    try:
        connection.request(method, path, body=body, headers=merged, encode_chunked=False)
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    found: dict[str, Any] = json.loads(raw)
    assert "Traceback" not in raw.decode()
    if answer.status >= 400:
        assert answer.getheader("Content-Type") == "application/problem+json"
        assert {"type", "title", "status", "detail", "code", "request_id", "errors"} <= set(found)
        assert found["detail"]
    return answer.status, found


def errors(found: dict[str, Any]) -> dict[str, str]:
    """Return code by pointer."""
    return {one["pointer"]: one["code"] for one in found["errors"]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b'{"template_id": "diploma",}', "line 1, column 27"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"template_id": "\xff"}', "not UTF-8: byte 18"),
        (b'{"template_id": "a", "template_id": "b"}', '"template_id" stands twice'),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[]", "not a JSON object"),
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
        (b'{"a": [' + b"[]," * 200_000 + b"[]]}", "100,000 objects and lists"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_body_that_is_no_json_is_refused_with_the_place(
    house: Installation, body: bytes, says: str
) -> None:
    """What is wrong and where, within the limits of the reader."""
    status, found = ask(house, "POST", ISSUE, body)
    assert (status, found["code"]) == (400, "json_invalid")
    assert says in found["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (changed(template_id="diplom"), {"#/template_id": "template_unknown"}),
        (b"{}", {"#/template_id": "field_required", "#/recipient": "field_required"}),
        (changed(recipient={}),
         {"#/recipient/name": "field_required", "#/recipient/email": "field_required"}),
        (changed(reciever={}, locale="en"), {"#/reciever": "field_unknown", "#/locale": "field_unknown"}),
        (changed(fields={"course": "X", "colour": "red"}), {"#/fields/colour": "field_unknown"}),
        (changed(fields={}), {"#/fields/course": "field_required"}),
        (changed(fields={"course": 5}, issued_on=5),
         {"#/fields/course": "field_invalid", "#/issued_on": "field_invalid"}),
        (changed(recipient__name="x" * 400), {"#/recipient/name": "field_too_long"}),
        (changed(recipient__name="Eve\r\nBcc: all@victim.example"), {"#/recipient/name": "field_invalid"}),
        (changed(recipient__name="Eve\u202egnp.exe"), {"#/recipient/name": "field_invalid"}),
        (changed(recipient__name="Eve\u2028x"), {"#/recipient/name": "field_invalid"}),
        (changed(recipient__name="E\u200bve"), {"#/recipient/name": "field_invalid"}),
        (changed(recipient__name="\u200d\u200c"), {"#/recipient/name": "field_required"}),
        (changed(recipient__name="a" + "\u0301" * 20), {"#/recipient/name": "field_invalid"}),
        (changed(recipient__name="Ada \U00012000", fields={"course": "\U00013000"}),
         {"#/recipient/name": "text_unprintable", "#/fields/course": "text_unprintable"}),
        (changed(recipient__email="jane@exmple"), {"#/recipient/email": "email_invalid"}),
        (changed(recipient__email="a\u200eb@alumni.example"), {"#/recipient/email": "email_invalid"}),
        (changed(issued_on="2026-02-30", expires_on="31/12/2026", recipient__locale="xx"),
         {"#/issued_on": "date_invalid", "#/expires_on": "date_invalid",
          "#/recipient/locale": "field_invalid"}),
        (changed(issued_on="2026-05-05", expires_on="2020-01-01"), {"#/expires_on": "date_order"}),
    ],
)  # fmt: skip
def test_every_wrong_value_is_named_at_once(
    house: Installation, body: bytes, expected: dict[str, str]
) -> None:
    """The place and the code of each, in words that are ours, without the value."""
    status, found = ask(house, "POST", ISSUE, body)
    assert (status, found["code"]) == (422, "validation_failed")
    assert errors(found) == expected
    said = " ".join(one["detail"] for one in found["errors"])
    assert not any(word in said for word in ("Input should", "pattern", "Field required", "victim"))


def test_characters_that_no_font_has_are_named(house: Installation) -> None:
    """The sign and its number, so that it can be found."""
    _, found = ask(house, "POST", ISSUE, changed(recipient__name="Ada \U00012000"))
    assert "\U00012000 (U+12000)" in found["errors"][0]["detail"]


def test_a_near_template_is_suggested(house: Installation) -> None:
    """A typing error costs one look."""
    _, found = ask(house, "POST", ISSUE, changed(template_id="diplom"))
    assert "did you mean 'diploma'?" in found["detail"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("POST", ISSUE, {"Content_Type": "text/plain"}, (415, "media_type_unsupported")),
        ("POST", ISSUE, {"Content_Type": None}, (415, "media_type_unsupported")),
        ("GET", ISSUE, {}, (405, "method_not_allowed")),
        ("PROPFIND", ISSUE, {}, (405, "method_not_allowed")),
        ("GET", "/v1/nothing", {}, (404, "not_found")),
        ("GET", "/v1/credentials/%00%ff", {}, (404, "not_found")),
        ("GET", "/tasks/zzz/status", {}, (404, "not_found")),
        ("POST", ISSUE, {"Authorization": None}, (401, "key_missing")),
        ("POST", ISSUE, {"Authorization": "Basic eA=="}, (401, "key_missing")),
        ("POST", ISSUE, {"Authorization": "Bearer conferral_test_x"}, (401, "key_invalid")),
        ("POST", ISSUE, {"Host": "evil.example"}, (400, "request_invalid")),
        ("POST", ISSUE, {"Idempotency_Key": "x" * 300}, (400, "idempotency_key_invalid")),
        ("GET", "/v1/credentials?limit=x&colour=red", {}, (422, "validation_failed")),
        ("GET", "/v1/credentials?cursor=%00", {}, (400, "cursor_invalid")),
    ],
)
def test_every_other_door_answers_a_problem(
    house: Installation, method: str, path: str, headers: dict[str, str | None], expected: tuple[int, str]
) -> None:
    """Status and code of the reference."""
    found = ask(house, method, path, changed() if method == "POST" else None, **headers)
    assert (found[0], found[1]["code"]) == expected


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(house: Installation) -> None:
    """Its length alone is enough."""
    status, found = ask(house, "POST", ISSUE, b" " * (MIB + 1))
    assert (status, found["code"]) == (413, "body_too_large")


def test_huge_bodies_cost_little_memory(house: Installation) -> None:
    """A gigabyte without a length, forty megabytes of nonsense, JSON of nothing but texts: 4xx, +50 MiB."""
    key = {"Idempotency_Key": "bomb"}
    csv = "/v1/batches/csv?template_id=diploma"
    for _ in range(SMALL_REQUESTS):  # what every worker loads once, for a small body too, is not the bomb's
        ask(house, "POST", ISSUE, changed())
        ask(house, "POST", csv, b"a,b\n1,2\n", Content_Type="text/csv", **key)
        ask(house, "POST", "/v1/batches", b'{"rows": ["a"]}', **key)
    before = _web_memory(house)
    statuses = [
        _endless(house, csv, "text/csv"),
        _endless(house, "/v1/batches", "application/json"),
        ask(house, "POST", csv, b"a," * 20_000_000, Content_Type="text/csv", **key)[0],
        ask(house, "POST", csv, b'a,b\n"' + b"x\n" * 20_000_000, Content_Type="text/csv", **key)[0],
        ask(house, "POST", "/v1/batches", b'{"rows": [' + b'"ab",' * 800_000 + b"0]}", **key)[0],
        ask(house, "POST", "/v1/batches", b'{"rows": [' + b'"ab",' * 290_000 + b"0]}", **key)[0],
    ]
    assert statuses == [413, 413, 422, 422, 400, 422]
    grown = {pid: memory - before[pid] for pid, memory in _web_memory(house).items() if pid in before}
    assert grown
    assert max(grown.values()) < MOST_MEMORY, {pid: f"{size / MIB:.0f} MiB" for pid, size in grown.items()}


def test_good_rows_are_issued_while_the_bad_ones_wait(house: Installation, tmp_path: Path) -> None:
    """On the command line of a running installation: counted, issued, mended, issued, nobody twice."""
    file = tmp_path / "people.csv"
    good = "".join(f"Person {n},p{n}@alumni.example,Logic,id-{n}\n" for n in range(20))
    file.write_text(f"Name,E-mail,Course,Reference\n{good}Eve,eve@alumni,Logic,id-eve\n")
    words = ("--template", "diploma", "--yes", "--watch", "--timeout", "60")
    done = house.run("batch", "issue", str(file), *words)
    assert done.returncode == 1, done.stderr
    assert "21 rows = 20 to issue + 1 to mend" in done.stdout
    rest = tmp_path / "people.errors.csv"
    rest.write_text(rest.read_text().replace("eve@alumni,", "eve@alumni.example,"))
    done = house.run("batch", "issue", str(rest), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    for _ in range(2):
        done = house.run("batch", "issue", str(file), *words)
        assert "21 rows = 0 to issue + 1 to mend + 20 issued before" in done.stdout
    listed = house.call("GET", "/v1/credentials?q=eve&limit=200")[1]["data"]
    assert [one["external_id"] for one in listed if one["external_id"]] == ["id-eve"]


def _endless(house: Installation, path: str, media: str) -> int:
    """Send a gigabyte in chunks, without saying how much; return the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", house.ports[0], timeout=60)
    connection.putrequest("POST", path)
    for name, value in {
        "Authorization": f"Bearer {house.api_key}",
        "Content-Type": media,
        "Idempotency-Key": "endless",
        "Transfer-Encoding": "chunked",
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    piece = b"%x\r\n%s\r\n" % (MIB, b"a" * MIB)

    def send() -> None:
        for _ in range(1024):
            try:
                connection.send(piece)
            except OSError:  # the server has answered and hung up
                return

    sender = threading.Thread(target=send)
    began = time.monotonic()
    sender.start()
    try:
        status = connection.getresponse().status
    finally:
        connection.close()
        sender.join()
    assert time.monotonic() - began < 30
    return status


def _web_memory(house: Installation) -> dict[int, int]:
    """Return the highest memory that each process of the web server ever held, in bytes."""
    main = house.status()["web"]["pid"]
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = folder.joinpath("status").read_text().splitlines()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if fields["PPid"].strip() == str(main) and "VmHWM" in fields:
            found[int(folder.name)] = int(fields["VmHWM"].split()[0]) * 1024
    return found
