# SPDX-License-Identifier: Apache-2.0
"""Durable runs on Celery: the database remembers, Redis rings, Celery executes.

This package knows no credential, no Flask and no organisation. It may be used alone; it
must never import another package of Conferral.
"""
