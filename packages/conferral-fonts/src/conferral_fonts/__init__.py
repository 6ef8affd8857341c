# SPDX-License-Identifier: Apache-2.0
"""The fonts certificates are printed with. Data only: nothing in this package may ever be executed."""
