# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import click
import pytest
from sqlalchemy.exc import OperationalError

from conferral.cli import main
from conferral.domain.problems import FieldError, Problem
from conferral.reliable.errors import RoutingError
from conferral.settings import SettingsError


def run_with(error: BaseException | int | None, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a command that ends like this; return the exit code."""

    @click.command()
    def command() -> int | None:
        if isinstance(error, BaseException):
            raise error
        return error

    monkeypatch.setattr(main, "load", lambda _name: command)
    with pytest.raises(SystemExit) as caught:
        main.main(["status"])
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (7, 7, ""),
        (click.UsageError("no such option"), 2, "no such option"),
        (SettingsError(["A is wrong", "B is wrong"]), 2, "conferral: A is wrong\nconferral: B is wrong\n"),
        (Problem("key_invalid", "the key has expired"), 4, "conferral: the key has expired [key_invalid]\n"),
        (Problem("scope_missing", "x"), 4, "[scope_missing]"),
        (Problem("not_found", "there is no cred_1"), 5, "there is no cred_1 [not_found]"),
        (Problem("state_conflict", "x"), 6, "[state_conflict]"),
        (Problem("database_unavailable", "x"), 8, "[database_unavailable]"),
        (RoutingError("task x has no route"), 1, "task x has no route"),
        (OperationalError("select 1", {}, Exception("gone")), 8, "the database does not answer"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_error_is_a_sentence_and_an_exit_code(
    error: BaseException | int | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A person reads what is wrong, a script reads the code; nobody reads a traceback."""
    assert run_with(error, monkeypatch) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_every_wrong_value_is_told_when_input_is_invalid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All errors at once, each with its place and code."""
    wrong = [FieldError("/recipient/email", "email_invalid", "the domain has no dot")]
    assert run_with(Problem("validation_failed", "1 value is wrong", errors=wrong), monkeypatch) == 3
    assert "  /recipient/email: the domain has no dot [email_invalid]\n" in capsys.readouterr().err


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours must be found, not hidden."""
    monkeypatch.setattr(main, "load", lambda _name: click.Command("x", callback=lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        main.main(["status"])
