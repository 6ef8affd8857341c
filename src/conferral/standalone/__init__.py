# SPDX-License-Identifier: Apache-2.0
"""The offline verifier: a second, independent implementation that needs Python and `cryptography` alone.

Its parts are modules here, so that they are tested and checked like everything else; `program` joins them
into the one file that lies in every proof bundle. They import nothing of Conferral but each other.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import resources
from typing import Final

PARTS: Final = ("statements", "signatures", "log_and_list", "certificate", "verify")
_PACKAGE: Final = "conferral.standalone"
_HEAD: Final = '''#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""%s"""

from __future__ import annotations

%s
'''


@cache
def program() -> bytes:
    """Return `verify.py`: all parts in one file, the same bytes for one version of Conferral."""
    imports: set[str] = set()
    bodies: list[str] = []
    docstring = ""
    for part in PARTS:
        source = (resources.files(_PACKAGE) / f"{part}.py").read_text("utf-8")
        tree = ast.parse(source)
        docstring = ast.get_docstring(tree, clean=False) or ""
        lines = source.splitlines()
        dropped: set[int] = {1}  # the licence line
        for node in tree.body:
            is_text = isinstance(node, ast.Expr)
            if not is_text and not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if isinstance(node, ast.Import | ast.ImportFrom) and not _is_ours(node):
                imports.add(ast.unparse(node))
        kept = "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped).strip()
        bodies.append(f"# ---- {part.replace('_', ' ')} ----\n\n{kept}\n")
    ordered = sorted(imports, key=lambda line: ("cryptography" in line, line.startswith("from"), line))
    head = _HEAD % (docstring, "\n".join(ordered))
    return (head + "\n\n" + "\n\n".join(bodies)).encode("utf-8")


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    module = getattr(node, "module", None) or ""
    return module.startswith(_PACKAGE) or module == "__future__"
