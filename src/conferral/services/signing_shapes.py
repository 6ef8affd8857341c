# SPDX-License-Identifier: Apache-2.0
"""The signing shapes of one process: learned at first use, checked against the plain path, dropped if wrong.

The first document of a shape and every 500th go both ways. If they ever differ, the plain bytes are signed,
the shape is never used again in this process, and somebody is told. It must never sign what it doubts, and
never stop signing because of a shape.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Counter

from conferral.domain.canonical import UnsafeDocument, canonical_nquads
from conferral.domain.signing_shape import NoShape, Outline, Shape, learn, outline

log = logging.getLogger(__name__)

MAX_SHAPES: Final = 64
"""Shapes kept, some 30 KB each. A shape does not depend on a template's words: a deployment has a dozen."""
CHECK_EVERY: Final = 500
"""Every so many documents of a shape go both ways: ~5 µs a document, and a wrong shape does not last."""

signed_documents = Counter(
    "conferral_signed_documents_total", "Documents canonicalised to be signed, by the way taken.", ["path"]
)
mismatches = Counter(
    "conferral_signing_shape_mismatches_total", "Shapes dropped because the plain path wrote other bytes."
)


@dataclass(slots=True)
class _Known:
    """What this process knows of an outline.

    Attributes:
        shape: None when there is none: documents of the outline go the plain way.
        unchecked: documents written since both ways agreed; None before they first did.
    """

    shape: Shape | None
    unchecked: int | None = None


class SigningShapes:
    """Canonicalises documents that are about to be signed. Safe among threads and across fork."""

    def __init__(
        self, *, capacity: int = MAX_SHAPES, learner: Callable[[Mapping[str, Any]], Shape] = learn
    ) -> None:
        self._capacity = capacity
        self._learn = learner
        self._forget()

    def nquads(self, document: Mapping[str, Any]) -> bytes:
        """Return `canonical_nquads(document)`, by the document's shape where that is certain.

        For documents that this house makes: every outline is learned once, at the cost of some 30 plain
        documents, so strangers must not choose them.

        Raises:
            UnsafeDocument: as `canonical_nquads`.
        """
        if self._pid != os.getpid():
            # A fork may have copied the lock while a thread held it, and this process has checked nothing.
            self._forget()
        key, texts = outline(document)
        known = self._known(key, document)
        written = known.shape.nquads(texts) if known.shape is not None else None
        if written is None:
            signed_documents.labels("plain").inc()
            return canonical_nquads(document)
        if not self._is_due(known):
            signed_documents.labels("shape").inc()
            return written
        signed_documents.labels("both").inc()
        return self._checked(known, key, document, written)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._shapes: OrderedDict[Outline, _Known] = OrderedDict()

    def _known(self, key: Outline, document: Mapping[str, Any]) -> _Known:
        with self._lock:
            found = self._shapes.get(key)
            if found is not None:
                self._shapes.move_to_end(key)
                return found
        # Outside the lock: another thread that learns the same loses 0.1 s, and nobody waits.
        learned = _Known(self._learned(document))
        with self._lock:
            known = self._shapes.setdefault(key, learned)
            while len(self._shapes) > self._capacity:
                self._shapes.popitem(last=False)
        return known

    def _learned(self, document: Mapping[str, Any]) -> Shape | None:
        try:
            return self._learn(document)
        except (NoShape, UnsafeDocument) as refused:
            log.info("signing_shape_refused", extra={"reason": str(refused)})
            return None

    def _is_due(self, known: _Known) -> bool:
        with self._lock:
            if known.unchecked is None:
                return True
            known.unchecked = (known.unchecked + 1) % CHECK_EVERY
            return known.unchecked == 0

    def _checked(self, known: _Known, key: Outline, document: Mapping[str, Any], written: bytes) -> bytes:
        try:
            plain = canonical_nquads(document)
        except UnsafeDocument:
            self._drop(known, key)
            raise
        if plain == written:
            with self._lock:
                known.unchecked = known.unchecked or 0
        else:
            self._drop(known, key)
        return plain

    def _drop(self, known: _Known, key: Outline) -> None:
        with self._lock:
            known.shape = None
            suspect = 0 if known.unchecked is None else CHECK_EVERY - 1
        mismatches.inc()
        # Never the texts: they name people. The outline's digest tells two shapes apart.
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        log.error("signing_shape_mismatch", extra={"outline": digest[:16], "signed_unchecked": suspect})
