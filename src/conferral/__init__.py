# SPDX-License-Identifier: Apache-2.0
"""Conferral issues digital credentials, reliably, on Celery and Redis."""

__version__ = "0.1.0"
