# SPDX-License-Identifier: Apache-2.0
"""The database: engine, models and queries by aggregate. Library code never commits."""
