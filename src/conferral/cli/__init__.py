# SPDX-License-Identifier: Apache-2.0
"""The command line: the same services as the API, for people at a terminal."""
