# SPDX-License-Identifier: Apache-2.0
"""Values and rules: no I/O, no clock, no randomness of its own, no framework."""
