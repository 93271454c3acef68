"""The documentation is true and complete: its code and commands run, its links lead somewhere, nothing is left out.

How blocks are read, page by page, in order, in one temporary folder:

* `python` runs, in one namespace a page; what it prints must hold the lines of an `output` block right after it;
* a block whose first line is `# FILE: name` is written to that file, and not run;
* `console`: each line after `$ ` is run (`# exits 2`: with that code), and must print the lines below it, in order;
* `toml` is parsed, and configured where it is a run's configuration; `text`, `sh` and `mermaid` are only shown.

In output, `…` stands for anything, and a number with a point or a comma may be 2 % off: processors round differently.
"""

import contextlib
import io
import json
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import attrs
import pytest
from attrs import frozen
from foreign import publish
from hatchling.build import build_wheel

from framework.capabilities import CAPABILITIES, members
from framework.cli import main
from framework.config import DEFAULTS, SCALARS, SECTIONS, Config
from framework.contracts import Environment, Policy
from framework.hookspecs import CLAIMS, GIVES, NEEDS, Providers, RunHooks, hookspec
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.plugin_hooks import names
from framework.setup.tree import configure, settings_tree
from framework.setup.wiring import wire

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOKEN = re.compile(r"…|\d+\.\d+(?:e-?\d+)?|\d+(?:,\d{3})+|\s+")


def label(page):
    return str(page.relative_to(ROOT))


@frozen
class Block:
    kind: str
    text: str
    line: int  # of its first line, counted from 1
    follows: bool  # nothing but blank lines lies between it and the block before


def blocks(text):
    found, end = [], 0
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(match[1], match[2], line, end > 0 and not text[end : match.start()].strip()))
        end = match.end()
    return found


def without_blocks(text):
    return FENCE.sub("", text)


def matches(shown, printed):
    """Whether a printed line is what a page shows."""
    regex, numbers, position = "", [], 0
    for token in TOKEN.finditer(shown):
        regex += re.escape(shown[position : token.start()])
        position = token.end()
        if token[0] == "…":
            regex += ".*?"
        elif token[0].isspace():
            regex += r"\s+"
        else:
            regex += r"(\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)"
            numbers.append(float(token[0].replace(",", "")))
    found = re.fullmatch(regex + re.escape(shown[position:]), printed)
    return found is not None and all(
        math.isclose(float(text.replace(",", "")), number, rel_tol=0.02, abs_tol=0.005)
        for text, number in zip(found.groups(), numbers, strict=True)
    )


def missing_line(shown, printed):
    """The first shown line that is not printed after those before it; None: all are."""
    left = iter([line.strip() for line in printed.splitlines()])
    for line in filter(None, (line.strip() for line in shown.splitlines())):
        if line != "…" and not any(matches(line, candidate) for candidate in left):
            return line
    return None


class Screen(io.TextIOBase):
    """A stream that writes what it gets to a list; standard output of a reader is a terminal."""

    encoding = "utf-8"

    def __init__(self, written, terminal):
        self.written, self.terminal = written, terminal

    def write(self, text):
        self.written.append(text)
        return len(text)

    def isatty(self):
        return self.terminal


def in_process(words, out, written):
    """`framework …` or `python FILE.py` without a new interpreter, for torch takes seconds to import."""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(Screen(written, False)):
        try:
            if words[0] == "framework":
                return main(words[1:])
            runpy.run_path(words[1], run_name="__main__")
            return 0
        except SystemExit as end:
            return end.code or 0


def execute(command):
    """Run a shown command; its exit code, and what it printed."""
    written = []
    words = shlex.split(command, comments=True)
    if words[:3] == ["python", "-m", "framework"]:
        words = words[2:]
    if words[0] in ("framework", "python") and not {"|", "&&", "<"} & set(words):
        if ">" in words:
            with open(words[words.index(">") + 1], "w", encoding="utf-8") as file:
                return in_process(words[: words.index(">")], file, written), "".join(written)
        return in_process(words, Screen(written, True), written), "".join(written)
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    return finished.returncode, finished.stdout + finished.stderr


def check_console(block, where):
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        expected = re.search(r"#.*\bexits (\d+)", command)
        code, printed = execute(command)
        assert code == (int(expected[1]) if expected else 0), f"{where}: {command}: exit code {code}\n{printed}"
        absent = missing_line(shown, printed)
        assert absent is None, f"{where}: {command}: not printed: {absent}\n{printed}"


def check_toml(block):
    tree = tomllib.loads(block.text)
    if not {"project", "build-system"} & tree.keys():
        loaded = load(tree.pop("plugins", None))
        wire(configure(loaded, merge(DEFAULTS, tree)), loaded)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A user at a terminal in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name, value in {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "110", "LINES": "50"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, id=label(page)) for page in PAGES])
def test_what_a_page_shows_runs(page, reader):
    namespace, printed = {"__name__": "__main__"}, ""
    for block in blocks(page.read_text("utf-8")):
        where = f"{label(page)}:{block.line}"
        file = re.match(r"# FILE: (\S+)\n", block.text)
        if file:
            Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(file[1]).write_text(block.text, "utf-8")
        if block.kind == "python" and not file:
            code = compile("\n" * (block.line - 1) + block.text, where, "exec")
            written = []
            with contextlib.redirect_stdout(Screen(written, True)):
                exec(code, namespace)
            printed = "".join(written)
        elif block.kind == "output":
            assert block.follows, f"{where}: an output block follows the code that prints it"
            assert missing_line(block.text, printed) is None, f"{where}: not printed:\n{block.text}\n{printed}"
        elif block.kind == "console":
            check_console(block, where)
        elif block.kind == "toml":
            check_toml(block)
        else:
            assert block.kind in ("python", "text", "sh", "mermaid"), (
                f"{where}: an unknown kind of block, '{block.kind}'"
            )


def test_a_wrong_line_is_noticed():
    printed = "record: runs/a-1\nmean return 5.39 ± 2.14 (last 100 episodes)\n"
    assert missing_line("mean return 5.40 ± 2.14 (last 100 episodes)", printed) is None
    assert missing_line("mean return 5.6 ± 2.14 (last 100 episodes)", printed)
    assert missing_line("mean return … (last 90 episodes)", printed)
    assert missing_line("mean return …\nrecord: runs/…", printed)  # not in this order


# Links and index


def links(page):
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text("utf-8")))


def anchors(page):
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{label(page)}: {link}"
        assert not anchor or anchor in anchors(path), f"{label(page)}: {link}"


def test_the_index_names_every_page():
    linked = {(DOCS / link).resolve() for link in links(DOCS / "README.md")}
    assert {page.resolve() for page in DOCS.rglob("*.md")} - {DOCS / "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_no_page_knows_one_machine(page):
    absolute = re.search(r"""(?:^|[\s`("'])(?:[A-Z]:\\|/\w+/\w)""", page.read_text("utf-8"), re.MULTILINE)
    assert absolute is None, absolute


# Hooks


def sections(text, level):
    """From each heading of a level, without backticks, to the text below it; a comment in a block is no heading."""
    hidden = FENCE.sub(lambda block: block[0].replace("\n#", "\n\0#"), text)
    parts = re.split(r"^(#+) (.+)$", hidden, flags=re.MULTILINE)
    found, heading = {}, None
    for marks, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if len(marks) <= level:
            heading = title.strip("`") if len(marks) == level else None
        if heading is not None:
            found[heading] = found.get(heading, "") + body.replace("\0", "")
    return found


def undocumented(page, *specs):
    """The hooks without a section that says when it is called, with what, what to return, and shows code."""
    reported = sections(page, 3)
    return [
        name
        for spec in specs
        for name in names(spec)
        if not all(
            word in reported.get(name, "") for word in ("**Called**", "**Arguments**", "**Return**", "```python")
        )
    ]


HOOKS = (DOCS / "reference" / "hooks.md").read_text("utf-8")


def test_every_hook_is_documented():
    assert undocumented(HOOKS, Providers, RunHooks) == []


def test_an_undocumented_hook_is_noticed():
    class Newer:
        @hookspec
        def checkpoint_written(self, run):
            """No page tells of this."""

    assert undocumented(HOOKS, RunHooks, Newer) == ["checkpoint_written"]
    emptied = HOOKS.replace("### `should_stop`", "### `should_stop`\n\n### `something_else`")
    assert undocumented(emptied, Providers, RunHooks) == ["should_stop"]


@pytest.mark.parametrize("hook", [*names(Providers), *names(RunHooks)])
def test_every_hook_is_implemented_in_some_test(hook):
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(re.search(rf"@hookimpl.*\n\s*def {hook}\(", source) for source in sources)


# Configuration


def rows(text):
    """A page's tables: the first cell's word → the other cells."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        word = re.fullmatch(r"`([\w.:]+)`", cells[0])
        if line.startswith("|") and word:
            found[word[1]] = cells[1:]
    return found


CONFIGURATION = sections((DOCS / "reference" / "configuration.md").read_text("utf-8"), 2)


def shown(value):
    """As the tables show a default: what TOML would hold, which JSON writes alike."""
    return "not set" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_of_a_section_is_listed_with_its_default(section):
    table = rows(CONFIGURATION[f"[{section}]"])
    defaults = {field.name: getattr(SECTIONS[section](), field.name) for field in attrs.fields(SECTIONS[section])}
    assert {name: cells[0] for name, cells in table.items()} == {name: shown(value) for name, value in defaults.items()}
    assert all(len(cells[1].split()) > 2 for cells in table.values())


def test_ci_installs_what_the_readme_says():
    """The same words of pip in both."""
    (words,) = re.findall(r"pip install (-e \"\.\[test\]\".*?) &&", (ROOT / "README.md").read_text())
    assert f'pip" install --quiet {words}\n' in (ROOT / ".ci" / "run").read_text()


def test_every_scalar_is_listed_with_its_default():
    table = rows(CONFIGURATION["The top"])
    fields = attrs.fields_dict(Config)
    assert {name: table[name][0] for name in SCALARS} == {name: shown(fields[name].default) for name in SCALARS}
    assert table.keys() == SCALARS.keys() | {"plugins", "reports"}


@pytest.mark.parametrize("role", sorted(DEFAULTS.keys() - {"reports", "extensions"}))
def test_every_default_part_is_listed_with_its_settings(role):
    loaded = load()
    part = getattr(configure(loaded, DEFAULTS), role)
    table = rows(CONFIGURATION["The five parts"])
    assert table[role][0] == shown(part.name)
    for name, value in settings_tree(part.settings).items():
        assert table[f"{role}.{name}"][0] == shown(value)


def test_every_setting_of_the_extensions_is_listed():
    table = rows(CONFIGURATION["[extensions]"])
    loaded = load()
    settings = {name: settings_tree(loaded.pick("extension", name)[2]()) for name in ("standardize", "scale_rewards")}
    assert {name: cells[0] for name, cells in table.items()} == {
        f"{name}.{key}": shown(value) for name, tree in settings.items() for key, value in tree.items()
    }


# Contracts

CONTRACTS = (DOCS / "reference" / "contracts.md").read_text("utf-8")


@pytest.mark.parametrize(("heading", "words"), [("needs", NEEDS), ("gives", GIVES), ("claims", CLAIMS)])
def test_every_word_of_wiring_is_explained(heading, words):
    reported = rows(sections(CONTRACTS, 3)[heading])
    assert reported.keys() == set(words)
    assert all(len(cells[0].split()) > 2 for cells in reported.values())


def test_every_field_of_the_data_is_listed():
    from framework import contracts

    reported = sections(CONTRACTS, 3)
    for name in ("Step", "Inputs", "Action", "Evaluation", "Rollout", "Estimate", "Advantages", "Batch", "Loss"):
        fields = {field.name for field in attrs.fields(getattr(contracts, name))}
        assert rows(reported[name]).keys() == fields, name
    assert rows(reported["TabularMDP"]).keys() == {field.name for field in attrs.fields(contracts.TabularMDP)}


ROLE_SECTIONS = {"environment": ("Environment", Environment), "policy": ("Policy", Policy)}
ELSEWHERE = {"title"}  # of settings of any role


@pytest.mark.parametrize("role", ROLE_SECTIONS)
def test_every_member_of_a_part_is_listed_required_or_a_capability(role):
    """The tables of a role's section name exactly the members of its Protocol and of its capabilities."""
    heading, protocol = ROLE_SECTIONS[role]
    cells = re.findall(r"^\| (`.+?) \|", sections(CONTRACTS, 2)[heading].partition("\n### ")[0], re.MULTILINE)
    listed = {word for cell in cells for word in re.findall(r"`(\w+)(?:\([\w, ]*\))?`", cell)}
    capable = {name for capability in CAPABILITIES[role] for name in members(capability)}
    required = set(members(protocol)) | ({"act"} if role == "policy" else set())
    assert listed - ELSEWHERE - {"render_fps"} == required | capable


def test_capabilities_of_other_roles_are_described():
    for role in ("actor", "baseline", "extension"):
        for capability in CAPABILITIES[role]:
            assert all(re.search(rf"`{name}\b", CONTRACTS) for name in members(capability)), capability


# Errors that need an installed package to show themselves


def text_blocks(page):
    return "\n".join(block.text for block in blocks(page.read_text("utf-8")) if block.kind == "text")


def test_errors_of_installed_packages_are_as_shown(reader, tmp_path, monkeypatch, capsys):
    shown = text_blocks(DOCS / "reference" / "errors.md").splitlines()
    publish(tmp_path, monkeypatch, "acme-rl", {"acme": "acme_rl"}, acme_rl="import no_such_module")
    assert main(["plugins", "--plugins"]) == 0
    assert "no_such_module" in capsys.readouterr().out
    assert main(["run", "--estimator", "hyperbolic"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    publish(tmp_path, monkeypatch, "other-rl", {"acme": "other_rl"}, other_rl="")
    assert main(["plugins"]) == 2
    for line in (*lines, capsys.readouterr().err.strip()):
        assert any(matches(candidate, line) for candidate in shown), line


# The package of the how-to


def test_the_package_of_the_howto_is_complete(reader, tmp_path):
    found = blocks((DOCS / "howto" / "write-a-plugin.md").read_text("utf-8"))
    (module,) = [block.text for block in found if block.text.startswith("# FILE: from_start.py")]
    (project,) = [block.text for block in found if "[build-system]" in block.text]
    Path("from_start.py").write_text(module, "utf-8")
    Path("pyproject.toml").write_text(project, "utf-8")
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        names_inside = wheel.namelist()
        (points,) = [wheel.read(name).decode() for name in names_inside if name.endswith("entry_points.txt")]
    assert "from_start.py" in names_inside
    assert points.split() == ["[framework.plugins]", "from_start", "=", "from_start"]


# Decisions


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_short_and_complete(page):
    text = page.read_text("utf-8")
    assert len(text.splitlines()) < 40
    number = int(page.stem[:4])
    assert re.match(rf"# {number}\. ", text)
    reported = sections(text, 2)
    assert list(reported) == ["Context", "Decision", "Rejected", "Consequences"]
    assert all(body.strip() for body in reported.values())


def test_decisions_are_numbered_without_gaps():
    assert [int(page.stem[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
