# SPDX-License-Identifier: Apache-2.0
"""The account of one trial: what was promised, what the peers saw, what is missing, doubled or unexplained.

A repeat on the wire is excused only if the peer itself withheld the answer, or if the process that sent it
(the owner of the lost attempt) died at a crash point where nobody can know, or was killed or frozen within
0.05 s of the effect. The share of effects that lie in such windows by chance is printed beside it: with a
wide window every repeat would be excused.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from conferral.domain.credential import UNFINISHED
from conferral.reliable.tables import FAILURE, LIVE_STATES, SUCCESS, attempts, runs
from conferral.store.tables import credentials, deliveries, leaves
from support.chaos_client import Accepted, AcceptedBatch
from support.chaos_house import House, in_parts
from support.chaos_points import MAY_REPEAT
from support.chaos_processes import Harm

AUDIT_SECONDS = 900.0
"""Ten thousand credentials on a busy machine; it is no promise, only an end."""
WINDOW_SECONDS = 0.05
"""How soon after an effect its process must have died for the repeat to be nobody's fault."""
EVERY_LOG = re.compile(r"^(?:Traceback|\w*Error:)")
SENDERS = ("mail", "hooks")
_ERRORS = frozenset({"ERROR", "CRITICAL", "error", "critical"})


@dataclass
class Effect:
    """One effect that a peer saw."""

    channel: str
    identity: str
    about: str
    digest: str
    at: float
    is_withheld: bool
    is_good: bool


@dataclass
class Account:
    """The figures of a ledger; `details` explains every one that should be zero."""

    attempted: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    excused: int = 0
    unexpected: int = 0
    recovered: int = 0
    by_chance: float = 0.0
    unexplained_errors: int = 0
    deviations: int = 0
    details: list[str] = field(default_factory=list)


class Ledger:
    """Opened before a trial, finished after it: `Ledger(house, "kill_child")`, …, `finish()`."""

    def __init__(self, house: House, name: str) -> None:
        self.house, self.name = house, name
        self.began = time.time()
        self._accepted_before = len(house.client.accepted)
        self._batches_before = len(house.client.batches)
        self._log_sizes = {path: path.stat().st_size for path in _logs(house)}
        self._answers_before = Counter(house.client.answers)

    @property
    def accepted(self) -> list[Accepted | AcceptedBatch]:
        """What was promised since the ledger was opened."""
        client = self.house.client
        return [*client.accepted[self._accepted_before :], *client.batches[self._batches_before :]]

    def ids(self) -> list[str]:
        """Return the credentials that were promised since the ledger was opened, as far as they exist."""
        alone = [one.credential_id for one in self.accepted if isinstance(one, Accepted)]
        batches = [one for one in self.accepted if isinstance(one, AcceptedBatch)]
        return [*alone, *(each for batch in batches for each in self.house.ids_of(batch))]

    def answers(self) -> Counter[str]:
        """Return how often the API answered what since the ledger was opened."""
        return Counter(self.house.client.answers) - self._answers_before

    def finish(
        self, *, expected: Iterable[str] = (), failures: Iterable[str] = (), audited: bool = True
    ) -> Account:
        """Count, print the table, and fail if anything was lost, doubled or unexplained.

        Args:
            expected: regular expressions of log lines (level ERROR) that the injected fault explains.
            failures: error codes with which a run or credential may have ended.
            audited: whether the installation is there to be audited.
        """
        account = self.count(failures)
        for line in self.unexplained_errors(expected):
            account.unexplained_errors += 1
            account.details.append(f"log: {line}")
        table = self._table(account, _audit(self.house, account) if audited else "audit        not asked")
        print(table)  # noqa: T201 -- the account is what a chaos test is run for
        wrong = (account.lost, account.doubled, account.unexpected, account.unexplained_errors)
        assert (*wrong, account.deviations) == (0,) * 5, "\n".join([table, *account.details[:40]])
        return account

    def count(self, failures: Iterable[str] = ()) -> Account:
        """Return the figures."""
        account = Account()
        ids = [one.credential_id for one in self.accepted if isinstance(one, Accepted)]
        for batch in (one for one in self.accepted if isinstance(one, AcceptedBatch)):
            mine = self.house.ids_of(batch)
            ids += mine
            account.acknowledged += batch.rows - len(mine)
            _lose(account, batch.rows - len(mine), f"rows of {batch.batch_id} without a credential")
        account.acknowledged += len(ids)
        twice = [each for each, count in Counter(ids).items() if count > 1]
        _double(account, twice, "answered to two keys")
        effects = self._effects(set(ids))
        self._count_credentials(account, ids, frozenset(failures))
        self._count_deliveries(account, ids, effects, frozenset(failures))
        self._count_identities(account, effects)
        self._count_signatures(account, set(ids))
        self._count_repeats(account, effects)
        self._count_recovered(account, ids)
        return account

    def unexplained_errors(self, expected: Iterable[str]) -> list[str]:
        """Return the log lines of level ERROR since the beginning that no expectation explains."""
        known = [re.compile(each) for each in expected]
        found = []
        for path in _logs(self.house):
            with path.open("rb") as file:
                file.seek(min(self._log_sizes.get(path, 0), path.stat().st_size))
                lines = file.read().decode(errors="replace").splitlines()
            errors = [f"{path.stem}: {line}" for line in lines if _is_error(line)]
            found += [line[:400] for line in errors if not any(each.search(line) for each in known)]
        return found

    def _effects(self, ids: set[str]) -> list[Effect]:
        found = []
        for mail in self.house.mails.seen():
            about = mail["message_id"].strip("<>").partition(".")[0]
            if about in ids:
                found.append(Effect("email", mail["message_id"], about, f"{mail['sha256']} {mail['date']}",
                                    mail["at"], not mail["answer"], mail["answer"][:1] == "2"))  # fmt: skip
        for hook in self.house.hooks.seen():
            body = json.loads(hook["body"])
            about = str(body.get("data", {}).get("credential_id", ""))
            if about in ids:
                assert hook["is_signed"] is not False, f"{hook['webhook_id']} is not signed with its secret"
                found.append(Effect("webhook", hook["webhook_id"], about, hook["sha256"],
                                    hook["at"], not hook["status"], 200 <= hook["status"] < 300))  # fmt: skip
        return found

    def _count_credentials(self, account: Account, ids: Sequence[str], failures: frozenset[str]) -> None:
        known: dict[str, Any] = {}
        for part in in_parts(ids):
            columns = (credentials.c.id, credentials.c.state, credentials.c.failure_code)
            known |= {row.id: row for row in self.house.rows(select(*columns).where(columns[0].in_(part)))}
            live = select(runs.c.id, runs.c.subject, runs.c.task, runs.c.state).where(
                runs.c.subject.in_(part), runs.c.state.in_(LIVE_STATES)
            )
            for row in self.house.rows(live):
                _lose(account, 1, f"run {row.id} ({row.task}) of {row.subject} is still {row.state}")
            found = select(leaves.c.credential_id, leaves.c.revision, leaves.c.leaf_index).where(
                leaves.c.credential_id.in_(part)
            )
            rows = self.house.rows(found)
            account.attempted["leaves"] += len(rows)
            twice = [key for key, n in Counter((r.credential_id, r.revision) for r in rows).items() if n > 1]
            _double(account, twice, "has two leaves")
        for each in ids:
            row = known.get(each)
            if row is None:
                _lose(account, 1, f"{each}: 202, but no row")
            elif row.state in UNFINISHED or (row.state == "failed" and row.failure_code not in failures):
                _lose(account, 1, f"{each}: {row.state} {row.failure_code or ''}")

    def _count_deliveries(
        self, account: Account, ids: Sequence[str], effects: Sequence[Effect], failures: frozenset[str]
    ) -> None:
        """A delivery that says `sent` was seen by its peer; any other end needs a reason that is allowed."""
        good = {effect.identity for effect in effects}
        columns = (deliveries.c.id, deliveries.c.channel, deliveries.c.message_id, deliveries.c.event_id,
                   deliveries.c.credential_id, deliveries.c.state, deliveries.c.failure_code)  # fmt: skip
        told: Counter[str] = Counter()
        for part in in_parts(ids):
            for row in self.house.rows(select(*columns).where(deliveries.c.credential_id.in_(part))):
                told[row.credential_id] += row.channel == "email"
                identity = row.message_id if row.channel == "email" else row.event_id
                if row.state == "sent" and identity not in good:
                    _lose(account, 1, f"{row.channel} of {row.credential_id}: sent, and nobody saw it")
                elif row.state != "sent" and row.failure_code not in failures:
                    _lose(account, 1, f"{row.channel} of {row.credential_id}: {row.state} {row.failure_code}")
        twice = [each for each, mails in told.items() if mails > 1]
        _double(account, twice, "has two deliveries by e-mail")

    def _count_identities(self, account: Account, effects: Sequence[Effect]) -> None:
        """One identity for one thing told, and the same bytes under one identity."""
        account.attempted["mails"] = len({e.identity for e in effects if e.channel == "email"})
        account.attempted["webhooks"] = len({e.identity for e in effects if e.channel == "webhook"})
        digests: dict[str, set[str]] = defaultdict(set)
        named: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        kinds = {hook["webhook_id"]: json.loads(hook["body"])["type"] for hook in self.house.hooks.seen()}
        for effect in effects:
            digests[effect.identity].add(effect.digest)
            kind = kinds.get(effect.identity) or effect.identity.split(".")[1]
            named[(effect.channel, effect.about, kind)].add(effect.identity)
        _double(account, [e for e, seen in digests.items() if len(seen) > 1], "was sent with two contents")
        _double(account, [e for e, seen in named.items() if len(seen) > 1], "has two identities")

    def _count_signatures(self, account: Account, ids: set[str]) -> None:
        """Every signed credential that ever reached the disk, also one that no row names."""
        proofs: dict[str, set[str]] = defaultdict(set)
        names: dict[str, str] = {}
        for part in in_parts(sorted(ids)):
            columns = (credentials.c.id, credentials.c.vc_id)
            names |= {
                row.vc_id: row.id for row in self.house.rows(select(*columns).where(columns[0].in_(part)))
            }
        for path in (self.house.installation.folder / "blobs").glob("??/*"):
            if path.stat().st_mtime < self.began - 1 or path.name.startswith("."):
                continue
            with path.open("rb") as file:
                head = file.read(1)
                signed = json.loads(head + file.read()) if head == b"{" else {}
            if signed.get("id") in names:
                proofs[signed["id"]].add(json.dumps(signed.get("proof"), sort_keys=True))
        account.attempted["signatures"] = len(proofs)
        _double(account, [names[e] for e, seen in proofs.items() if len(seen) > 1], "has two signatures")

    def _count_repeats(self, account: Account, effects: Sequence[Effect]) -> None:
        by_identity: dict[tuple[str, str], list[Effect]] = defaultdict(list)
        for effect in sorted(effects, key=lambda one: one.at):
            by_identity[(effect.channel, effect.identity)].append(effect)
        harms = self.harms()
        repeated = {key: seen for key, seen in by_identity.items() if len(seen) > 1}
        losers = self._losers({effect.about for seen in repeated.values() for effect in seen})
        unknowable = {one.pid for one in self.house.points.fired() if one.point in MAY_REPEAT}
        for (channel, identity), seen in repeated.items():
            mine = [one for one in harms if one.pid in losers[identity]]
            for effect in (one for one in seen[:-1] if one.is_good or one.is_withheld):
                account.repeated += 1
                if effect.is_withheld or losers[identity] & unknowable or _was_harmed(effect, mine):
                    account.excused += 1
                    continue
                account.unexpected += 1
                gaps = ", ".join(f"{one.began - effect.at:.3f} s" for one in mine) or "nobody died"
                account.details.append(f"repeat: {channel} {identity} of {effect.about}; its sender: {gaps}")
        seconds = max(time.time() - self.began, 1.0)
        senders = [one for one in harms if one.name in {*SENDERS, "all"} and one.began >= self.began]
        share = sum(one.ended - one.began + 2 * WINDOW_SECONDS for one in senders) / seconds
        account.by_chance = min(1.0, share)

    def _losers(self, ids: set[str]) -> dict[str, set[int]]:
        """Return, by identity, the processes in which an attempt to tell it was lost or fenced."""
        found: dict[str, set[int]] = defaultdict(set)
        joined = deliveries.join(attempts, attempts.c.run_id == deliveries.c.run_id)
        columns = (deliveries.c.message_id, deliveries.c.event_id, attempts.c.owner)
        for part in in_parts(sorted(ids)):
            lost = select(*columns).select_from(joined).where(
                deliveries.c.credential_id.in_(part), attempts.c.outcome.in_(("lost", "fenced"))
            )  # fmt: skip
            for row in self.house.rows(lost):
                found[row.message_id or row.event_id].add(int((row.owner or "//0/").split("/")[2]))
        return found

    def harms(self) -> list[Harm]:
        """Return every process that was killed or frozen, by a test or at a crash point."""
        fired = self.house.points.fired()
        return [*self.house.processes.harms, *(Harm(one.pid, "all", one.at, one.at) for one in fired)]

    def _count_recovered(self, account: Account, ids: Sequence[str]) -> None:
        for part in in_parts(ids):
            joined = runs.join(attempts, attempts.c.run_id == runs.c.id)
            failed = select(runs.c.id, runs.c.state).select_from(joined).distinct().where(
                runs.c.subject.in_(part), attempts.c.outcome != "success"
            )  # fmt: skip
            rows = self.house.rows(failed)
            account.recovered += sum(row.state == SUCCESS for row in rows)
            account.attempted["parked"] += sum(row.state == FAILURE for row in rows)

    def _table(self, account: Account, audit: str) -> str:
        seen = "  ".join(f"{name} {count:,}" for name, count in account.attempted.items())
        answers = "  ".join(f"{name} {count:,}" for name, count in sorted(self.answers().items()))
        rows = {
            "attempted": seen,
            "acknowledged": f"{account.acknowledged:,}    (answers: {answers})",
            "lost": account.lost,
            "doubled": account.doubled,
            "unexpected": f"{account.unexpected}    ({account.repeated} repeats, {account.excused} excused; "
            f"chance alone would excuse {account.by_chance:.2%})",
            "recovered": account.recovered,
            "errors": f"{account.unexplained_errors} unexplained log lines",
        }
        title = f"{self.name} on {self.house.kind}, seed {self.house.seed}, {time.time() - self.began:.1f} s"
        return "\n".join(
            ["", f"-- {title} --", *(f"  {name:<13}{value}" for name, value in rows.items()), f"  {audit}"]
        )


def _was_harmed(effect: Effect, harms: Sequence[Harm]) -> bool:
    """Whether one of these processes was killed, or frozen, within the window around the effect."""
    return any(one.began - WINDOW_SECONDS <= effect.at <= one.ended + WINDOW_SECONDS for one in harms)


def _lose(account: Account, count: int, why: str) -> None:
    if count:
        account.lost += count
        account.details.append(f"lost: {why}")


def _double(account: Account, what: Sequence[object], why: str) -> None:
    account.doubled += len(what)
    account.details += [f"doubled: {each} {why}" for each in what]


def _logs(house: House) -> list[Path]:
    return sorted((house.installation.folder / "logs").glob("*.log"))


def _is_error(line: str) -> bool:
    if line.startswith("{"):
        try:
            return json.loads(line).get("level") in _ERRORS
        except ValueError:
            return False
    return EVERY_LOG.match(line) is not None


def _audit(house: House, account: Account) -> str:
    """Run `conferral audit`; what it finds becomes details."""
    done = house.installation.run("audit", "--json", seconds=AUDIT_SECONDS)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    deviations = [line for line in lines if line["kind"] == "deviation"]
    account.details += [f"audit: {line}" for line in deviations]
    account.deviations = len(deviations)
    summary = next((line for line in lines if line["kind"] == "summary"), None)
    assert summary is not None, f"conferral audit ended with {done.returncode}: {done.stdout} {done.stderr}"
    assert (done.returncode == 0) == (not deviations), done
    return (
        f"audit        {len(deviations)} deviations in {summary['credentials']:,} credentials, "
        f"{summary['runs']:,} runs; {summary['orphans']} orphans; {summary['seconds']:.1f} s"
    )
