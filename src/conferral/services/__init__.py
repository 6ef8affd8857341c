# SPDX-License-Identifier: Apache-2.0
"""The story of the product, one verb per file."""
