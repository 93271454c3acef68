"""Plain English of the field: words that have a plainer one are kept out of docs, help, messages and names."""

import io
import re
import tokenize
from pathlib import Path

import pytest

import framework

ROOT = Path(framework.__file__).parent.parent
WORDS = {  # a word that is kept out: the plain one
    r"told": "reported, called, given",
    r"asked of": "checked on",
    r"spoil(s|t|ed)?": "break, mutant",
    r"mend(s|ed)?": "fix",
    r"judge[sd]?|judging": "evaluate",
    r"slopes?": "gradient",
    r"strangers?": "third party",
    r"somebody": "name who or what it is",
    r"laid flat": "flattened",
    r"put to the laws": "checked against the laws",
    r"whose it (is|was)": "which part it belongs to",
    r"going_on": "continues",
    r"culprits?": "part",
}
NAMES = ("judge", '"judge"')  # public: `framework.testing.judge`
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
FOLDERS = ("framework", "plugins", "tests", "benchmarks")
CODE = [
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.name not in ("test_words.py", "test_help.py") and ".cache" not in path.parts  # which list such words
]


def prose(page):
    """A page without code in it."""
    return re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", "", page, flags=re.DOTALL | re.MULTILINE)


def found(text):
    return [word for word in WORDS if re.search(rf"(?<![\w-])({word})(?![\w-])", text, re.IGNORECASE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_have_plain_words(page):
    assert found(prose(page.read_text("utf-8"))) == []


def test_code_has_plain_words():
    """In names, comments, docstrings and messages."""
    kinds = (tokenize.NAME, tokenize.STRING, tokenize.COMMENT)
    places = [
        f"{path.relative_to(ROOT)}:{token.start[0]}: {', '.join(found(token.string))}"
        for path in CODE
        for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
        if token.type in kinds and token.string not in NAMES and found(token.string)
    ]
    assert places == []


def test_a_word_is_found_as_a_word_only():
    assert found("The observers are told.") == ["told"]
    assert found("A commended slope-free amendment") == []
    assert prose("It is `told`.\n```\ntold\n```\n[x](told.md)").split() == ["It", "is", ".", "[x"]
