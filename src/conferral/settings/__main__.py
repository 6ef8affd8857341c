# SPDX-License-Identifier: Apache-2.0
"""`python -m conferral.settings` prints the reference page."""

import sys

from conferral.settings.reference import page

sys.stdout.write(page() + "\n")
