# SPDX-License-Identifier: Apache-2.0
"""The outside world, one peer per file; knows neither the database nor the story."""
