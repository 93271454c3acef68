"""docs/reference/laws.md, generated from the registry: `python -m framework.testing.page docs/reference/laws.md`."""

import sys
from pathlib import Path

from ..hookspecs import ROLES
from .checking import laws

HEAD = """# The laws

`framework check` ([how to](../howto/check-your-part.md)) tests a part against these laws, role by role. A law that does
not apply to a part is reported as not applicable, with the reason. This page is generated from the registry,
`framework.testing.LAWS`.
"""


def laws_page() -> str:
    """The page, as Markdown."""
    parts = [HEAD]
    for role in ROLES:
        stated = laws(role)
        if not stated:
            continue
        parts.append(f"## {role.capitalize()}\n\n| law | statement | source |\n|---|---|---|")
        parts[-1] += "".join(
            f"\n| `{law.name}` | {_in_a_cell(law.statement)} | {_linked(law.source)} |" for law in stated
        )
        parts[-1] += "\n"
    return "\n".join(parts)


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _linked(source: str) -> str:
    """Sources with pages of this documentation as links."""
    words = [_link(word) for word in _in_a_cell(source).split("; ")]
    return "; ".join(words)


def _link(word: str) -> str:
    if not word.startswith("docs/"):
        return word
    page = word.removeprefix("docs/")
    target = page.removeprefix("reference/") if page.startswith("reference/") else f"../{page}"
    return f"[{page.partition('#')[2].replace('-', ' ') or Path(page).stem}]({target})"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(laws_page(), "utf-8")
