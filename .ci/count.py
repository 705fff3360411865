"""Count the package's lines of code: no blank lines, comments or docstrings; and its modules, without ``__init__``."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "stac_cloudmask"
LIMITS = {"lines of code": 10_000, "modules": 80}
BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """Lines that hold code; docstrings, also of attributes, do not count."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in BLANK:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for one in body if isinstance(body, list) else ():
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
                lines.difference_update(range(one.lineno, (one.end_lineno or one.lineno) + 1))
    return len(lines)


def main() -> int:
    """Print each module's count and the totals; 1 if a limit is exceeded."""
    counts = {path: code_lines(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    for path, count in counts.items():
        sys.stdout.write(f"{count:5}  {path.relative_to(PACKAGE.parent)}\n")
    totals = {
        "lines of code": sum(counts.values()),
        "modules": sum(path.name != "__init__.py" for path in counts),
    }
    for what, total in totals.items():
        sys.stdout.write(f"{total} {what}, at most {LIMITS[what]}\n")
    return int(any(total > LIMITS[what] for what, total in totals.items()))


if __name__ == "__main__":
    raise SystemExit(main())
