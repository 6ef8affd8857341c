# SPDX-License-Identifier: Apache-2.0
"""The transparency logs: leaves, tiles, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy import insert as insert_row
from sqlalchemy.dialects.postgresql import insert  # compiles for SQLite, too
from sqlalchemy.orm import Session

from conferral.domain.merkle import ReadTile, Tile
from conferral.store.records import Record
from conferral.store.tables import checkpoints, credentials, leaves, log_tiles, logs


def add_log(session: Session, **values: Any) -> None:
    """Insert a log unless somebody was faster; its origin is frozen from then on."""
    session.execute(insert(logs).values(**values).on_conflict_do_nothing(index_elements=[logs.c.log]))


def locked(session: Session, log: str) -> Record | None:
    """Return the log's row and keep all other sequencers out until the commit."""
    return session.execute(select(logs).where(logs.c.log == log).with_for_update()).one_or_none()


def log(session: Session, name: str) -> Record | None:
    """Return a log."""
    return session.execute(select(logs).where(logs.c.log == name)).one_or_none()


def append_leaf(
    session: Session, *, log: str, credential_id: str | None, revision: int, entry: bytes, now: datetime
) -> None:
    """Insert a leaf without an index; the sequencer gives it one. No credential: a foreign document."""
    row = {"log": log, "credential_id": credential_id, "revision": revision, "entry": entry}
    session.execute(_INSERT_LEAF, {**row, "created_at": now})


_INSERT_LEAF = insert_row(leaves)  # built once: every credential that is signed appends one


def unsequenced(session: Session, log: str, limit: int) -> Sequence[Record]:
    """Return leaves without index, oldest first, with what their credentials need next."""
    return session.execute(
        select(
            leaves.c.id,
            leaves.c.entry,
            credentials.c.id.label("credential_id"),
            credentials.c.organisation_id,
            credentials.c.mode,
            credentials.c.run_id,
            credentials.c.batch_id,
            credentials.c.external_id,
            credentials.c.token,
            credentials.c.send_email,
            credentials.c.recipient_email,
            credentials.c.recipient_locale,
            credentials.c.supersedes,
        )
        .outerjoin(credentials, credentials.c.id == leaves.c.credential_id)
        .where(leaves.c.leaf_index.is_(None), leaves.c.log == log)
        .order_by(leaves.c.id)
        .limit(limit)
    ).all()


def oldest_unsequenced(session: Session, log: str) -> datetime | None:
    """Return when the oldest leaf without an index was appended."""
    found: datetime | None = session.execute(
        select(func.min(leaves.c.created_at)).where(leaves.c.leaf_index.is_(None), leaves.c.log == log)
    ).scalar_one()
    return found


def give_indices(session: Session, leaf_ids: Sequence[int], first: int) -> None:
    """Give leaves consecutive indices from `first` on."""
    session.execute(
        update(leaves).where(leaves.c.id == bindparam("leaf")).values(leaf_index=bindparam("position")),
        [{"leaf": leaf, "position": first + offset} for offset, leaf in enumerate(leaf_ids)],
    )


def tile_reader(session: Session, log: str) -> ReadTile:
    """Return a function that reads a stored tile, as wide as it is by now; empty if there is none."""

    def read_tile(level: int, number: int, _width: int) -> bytes:
        found: bytes | None = session.execute(
            select(log_tiles.c.data).where(
                log_tiles.c.log == log, log_tiles.c.level == level, log_tiles.c.number == number
            )
        ).scalar_one_or_none()
        return found or b""

    return read_tile


def write_tiles(session: Session, log: str, tiles: Sequence[Tile]) -> None:
    """Write new tiles and widen those at the right edge."""
    statement = insert(log_tiles)
    statement = statement.on_conflict_do_update(
        index_elements=["log", "level", "number"],
        set_={"width": statement.excluded.width, "data": statement.excluded.data},
    )
    session.execute(
        statement,
        [
            {"log": log, "level": tile.level, "number": tile.number, "width": tile.width, "data": tile.data}
            for tile in tiles
        ],
    )


def grow(session: Session, log: str, *, from_size: int, size: int, root: bytes, now: datetime) -> bool:
    """Move the log from the size we read to the new one; False if somebody else moved it."""
    moved = session.execute(
        update(logs)
        .where(logs.c.log == log, logs.c.size == from_size)
        .values(size=size, root=root, signed_at=now)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def add_checkpoint(session: Session, **values: Any) -> None:
    """Keep a signed checkpoint."""
    session.execute(insert_row(checkpoints).values(**values))


def newest_checkpoint(session: Session, log: str) -> Record | None:
    """Return the newest signed checkpoint."""
    return session.execute(
        select(checkpoints).where(checkpoints.c.log == log).order_by(checkpoints.c.size.desc()).limit(1)
    ).one_or_none()


def leaf_of(session: Session, credential_id: str) -> Record | None:
    """Return the newest leaf of a credential."""
    return session.execute(
        select(leaves)
        .where(leaves.c.credential_id == credential_id)
        .order_by(leaves.c.revision.desc())
        .limit(1)
    ).one_or_none()
