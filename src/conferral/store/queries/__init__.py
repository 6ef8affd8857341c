# SPDX-License-Identifier: Apache-2.0
"""Queries by aggregate. They take a session, never commit, and name the organisation."""
