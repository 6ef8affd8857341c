# SPDX-License-Identifier: Apache-2.0
"""`conferral`: a table of commands, each loaded when it is called, and one place where errors end.

An expected error is one clear sentence and an exit code, never a traceback. `conferral health` runs every
few seconds in containers, so it must not pay for the imports of the others.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click

# Name → where the command is, what it does. The line here is what `conferral --help` prints.
COMMANDS = {
    "up": ("conferral.cli.up:up", "Run everything here under one supervisor."),
    "batch": ("conferral.cli.batch:batch", "Issue many credentials from a file, follow and control batches."),
    "issue": ("conferral.cli.issue:issue", "Issue one credential."),
    "status": ("conferral.cli.status:status", "Show processes, leaders and queues, or one task."),
    "timeline": ("conferral.cli.timeline:timeline", "Show everything that happened to a credential."),
    "audit": ("conferral.cli.audit:audit", "Check that everything is as it was promised."),
    "dead": ("conferral.cli.dead_letters:dead", "List, show, replay and discard what failed for good."),
    "revoke": ("conferral.cli.standing:revoke", "Withdraw credentials for good."),
    "suspend": ("conferral.cli.standing:suspend", "Pause credentials of a suspendable template."),
    "reinstate": ("conferral.cli.standing:reinstate", "Put suspended credentials into force again."),
    "supersede": ("conferral.cli.supersede:supersede", "Replace a credential by a corrected one."),
    "verify": ("conferral.cli.verify:verify", "Check a credential from a file, address or id."),
    "mailbox": ("conferral.cli.mailbox:mailbox", "Read captured e-mails."),
    "webhooks": ("conferral.cli.webhooks:webhooks", "Add endpoints and listen to them."),
    "org": ("conferral.cli.organisations:org", "Create and list organisations."),
    "templates": ("conferral.cli.templates:templates", "Create and list templates."),
    "keys": ("conferral.cli.keys:keys", "Create and revoke API keys."),
    "signing-keys": (
        "conferral.cli.signing_keys:group",
        "List, rotate, withdraw and export the keys that credentials are signed with.",
    ),
    "user": ("conferral.cli.user:user", "Create people who may sign in to the console."),
    "doctor": ("conferral.cli.doctor:doctor", "Check this installation and say how to mend it."),
    "health": ("conferral.cli.health:health", "Tell whether the workers of this host are alive."),
    "migrate": ("conferral.cli.process_commands:migrate", "Bring the database to this version."),
    "api": ("conferral.cli.process_commands:api", "Run pages and API alone."),
    "streams": ("conferral.cli.process_commands:streams", "Run live streams and metrics alone."),
    "worker": ("conferral.cli.process_commands:worker", "Run one pool of workers alone."),
    "beat": ("conferral.cli.process_commands:beat", "Run the clock of the schedules alone."),
    "flower": ("conferral.cli.process_commands:flower", "Run Flower alone."),
    "demo": ("conferral.cli.demo:demo", "Make the demo organisation of a development installation."),
}

FAILED, USAGE, INVALID, DENIED, NOT_FOUND, CONFLICT, UNAVAILABLE = 1, 2, 3, 4, 5, 6, 8
INTERRUPTED = 130
# HTTP statuses of problems, as exit codes; any other 4xx is invalid input.
_EXIT_CODES = {401: DENIED, 403: DENIED, 404: NOT_FOUND, 409: CONFLICT, 410: NOT_FOUND, 429: UNAVAILABLE}
_SERVER_FAULT = 500
# Drivers say "cannot connect" in classes of their own; naming them here spares their imports.
_UNREACHABLE = {
    ("sqlalchemy", "OperationalError"): "the database",
    ("sqlalchemy", "InterfaceError"): "the database",
    ("sqlalchemy", "DatabaseError"): "the database",
    ("redis", "ConnectionError"): "Redis",
    ("redis", "TimeoutError"): "Redis",
    ("kombu", "OperationalError"): "the broker",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["health"] and "--help" not in words:
        from conferral.cli.health import run

        sys.exit(run(words[1:]))
    try:
        sys.exit(_run(words))
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        code = _explain(error)
        if code is None:
            raise
        sys.exit(code)


def _run(words: Sequence[str]) -> int:
    import click

    try:
        result = _group().main(args=list(words), prog_name="conferral", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        raise KeyboardInterrupt from error
    return result if isinstance(result, int) else 0


def _group() -> click.Group:
    import click

    from conferral import __version__

    class Table(click.Group):
        """Commands by name; a module is imported when its command is called."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            del ctx
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            del ctx
            return load(cmd_name) if cmd_name in COMMANDS else None

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            try:
                return super().resolve_command(ctx, args)
            except click.UsageError as error:
                near = difflib.get_close_matches(args[0], COMMANDS, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise click.UsageError(f"{error.message}{hint}", ctx) from None

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            del ctx
            with formatter.section("Commands"):
                formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])

    table = Table(
        "conferral",
        help="Issue digital credentials: PDF, Open Badges, transparency log, e-mail and webhook.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, message="%(version)s")(table)


def load(name: str) -> click.Command:
    """Import the command of that name."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _explain(error: Exception) -> int | None:
    """Say an expected error in one sentence on stderr; None when it is not expected."""
    from conferral.settings import SettingsError

    if isinstance(error, SettingsError):
        for problem in error.problems:
            _say(problem)
        return USAGE
    status = getattr(getattr(error, "type", None), "status", None)
    if isinstance(status, int) and hasattr(error, "detail"):
        return _explain_problem(error, status)
    if type(error).__name__ == "RoutingError":
        _say(str(error))
        return FAILED
    return _explain_peer(error)


def _explain_peer(error: Exception) -> int | None:
    """Say that a database or broker does not do what it is asked."""
    for kind in type(error).__mro__:
        peer = _UNREACHABLE.get((kind.__module__.partition(".")[0], kind.__name__))
        if peer is None:
            continue
        if peer == "the database":
            from conferral.cli.database_trouble import UNKNOWN, recognised

            trouble = recognised(error)
            if trouble is UNKNOWN and kind.__name__ == "DatabaseError":
                return None  # a statement or a value of ours is at fault
            _say(f"{trouble.says}: {trouble.cure}; `conferral doctor` tells more")
        else:
            _say(f"{peer} does not answer ({type(error).__name__}); `conferral doctor` tells why")
        return UNAVAILABLE
    return None


def _explain_problem(problem: Exception, status: int) -> int:
    """Say a domain problem, with each wrong value; see `conferral.domain.problems`."""
    _say(f"{getattr(problem, 'detail', '')} [{getattr(problem, 'code', '')}]")
    for item in getattr(problem, "errors", ()):
        _say(f"  {item.pointer}: {item.detail} [{item.code}]")
    if status >= _SERVER_FAULT:
        return UNAVAILABLE
    return _EXIT_CODES.get(status, INVALID)


def _say(text: str) -> None:
    sys.stderr.write(f"conferral: {text}\n")


if __name__ == "__main__":
    main()
