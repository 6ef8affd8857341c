# SPDX-License-Identifier: Apache-2.0
"""What queries return: rows whose columns are read by name."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import Row

Record: TypeAlias = Row[*tuple[Any, ...]]
