# SPDX-License-Identifier: Apache-2.0
"""The built-in designs of certificates: data only, read by `conferral.adapters.design_store`.

Each folder is one design: `main.typ` (how it is drawn), `theme.schema.json` (what an organisation may
change), `design.json` (its name and data fields), `wording.json` (its words) and `sample.json`. `_shared`
holds the entry file that wraps every design, and the house motif. Nothing here may be executed by Python.
"""
