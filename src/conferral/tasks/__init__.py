# SPDX-License-Identifier: Apache-2.0
"""The table of contents of all background work."""
