# SPDX-License-Identifier: Apache-2.0
"""Put an issuer's public evidence aside, for the day its host name is gone.

A did:web lives as long as its domain. Who keeps the DID document, and for each credential the proof that the
log held it, can still show what was signed and when. Nothing secret and nobody's name is in it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from functools import cache
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import checkpoint, did, merkle
from conferral.domain.problems import Problem
from conferral.services import anchoring, signing_keys
from conferral.services.runtime import Runtime
from conferral.services.signing_keys import KnownKey
from conferral.store.queries import log, revisions

PAGE: Final = 500  # leaves a query


def described(key: KnownKey) -> dict[str, Any]:
    """Return a key as API, command line and archive show it; times as they are."""
    return {
        "id": key.id,
        "number": key.number,
        "verification_method": key.verification_method,
        "public_key_multibase": did.multikey(key.public_key),
        "state": key.state,
        "created_at": key.created_at,
        "retired_at": key.retired_at,
        "withdrawn_at": key.withdrawn_at,
        "compromised_at": key.compromised_at,
    }


def files(rt: Runtime, organisation_id: str, mode: str) -> Generator[tuple[str, str]]:
    """Yield the archive's files by name: DID document, keys, the log's key, checkpoint, one proof a leaf.

    All proofs are against the one checkpoint that is in the archive.

    Raises:
        Problem: `state_conflict`: nothing was signed yet.
    """
    with rt.database.snapshot() as session:
        document = signing_keys.document_of(session, organisation_id, mode)
        if document is None:
            raise Problem(
                "state_conflict", f"nothing was signed in {mode} mode yet: there is no DID document"
            )
        keys = [described(key) for key in signing_keys.keys_of(session, organisation_id, mode)]
        newest = log.newest_checkpoint(session, mode)
        verifier = anchoring.verifier_key(session, mode)
        yield "did.json", json.dumps(document, indent=2)
        yield "keys.json", json.dumps(keys, indent=2, default=str)
        if newest is None or verifier is None:
            return
        yield "log.vkey", f"{verifier}\n"
        yield "checkpoint", newest.note
        yield from _proofs(session, (organisation_id, mode), newest.size, newest.note)


def _proofs(session: Session, owner: tuple[str, str], size: int, note: str) -> Iterator[tuple[str, str]]:
    read_tile = cache(log.tile_reader(session, owner[1]))
    after = -1
    while leaves := revisions.leaves_of(session, owner, after=after, before=size, limit=PAGE):
        for leaf in leaves:
            hashes = merkle.inclusion_proof(leaf.leaf_index, size, read_tile)
            proof = checkpoint.tlog_proof(leaf.leaf_index, hashes, note)
            yield f"proofs/{leaf.credential_id}.{leaf.revision}.tlog-proof", proof
        after = leaves[-1].leaf_index
