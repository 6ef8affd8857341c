# SPDX-License-Identifier: Apache-2.0
"""One tree of migrations for both databases: expand, deploy, contract; they never promise runs."""
