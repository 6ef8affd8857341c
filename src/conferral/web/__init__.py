# SPDX-License-Identifier: Apache-2.0
"""HTTP: shapes requests, calls one service, shapes the answer."""
