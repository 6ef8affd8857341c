# SPDX-License-Identifier: Apache-2.0
"""Pages and files for everybody: no login, no cookie, no script needed."""
