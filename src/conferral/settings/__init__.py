# SPDX-License-Identifier: Apache-2.0
"""All settings: read from the environment once, checked, frozen; never a global.

`Settings.from_env(os.environ)` is the only way in. Every field is documented as data, so the reference
page is generated and nothing undocumented can be read.
"""

from __future__ import annotations

from conferral.settings.errors import SettingsError
from conferral.settings.folders import prepare as prepare_data_dir
from conferral.settings.model import DEVELOPMENT, PRODUCTION, ROLES, Settings

__all__ = ["DEVELOPMENT", "PRODUCTION", "ROLES", "Settings", "SettingsError", "prepare_data_dir"]
