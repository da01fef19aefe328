"""What the README and the pages of ``docs/`` say is what happens."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tests.house import sessions
from tests.house.pages import PATIENCE, ROOT, Block, Page, blocks, pages
from twisted_smtpclient import errors
from twisted_smtpclient.gateway.schema import LEGACY, RecipientFields, RequestFields, types_of
from twisted_smtpclient.tap import Options

# Once is enough: what is run here does not differ from Python to Python.
pytestmark = pytest.mark.slow

LANGUAGES = {"python", "console", "json", "text"}

#: The README's two commands that set up all by themselves: the one has a test
#: below, the other is how these tests are run.
SETS_UP = "$ python3 -m venv "


def runs(block: Block) -> bool:
    return not block.text.startswith(SETS_UP)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_each_code_block_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    running = Page(tmp_path)
    try:
        for block in blocks(page):
            assert block.language in LANGUAGES, f"line {block.line}: nothing runs {block.language!r}"
            if runs(block):
                try:
                    running.run(block)
                except Exception as error:
                    raise AssertionError(f"{page.name}, line {block.line}: {error}") from error
    finally:
        running.close()


def test_the_readme_s_demo_command_sets_up_all_that_it_needs(tmp_path: Path) -> None:
    (command,) = (
        block.text[2:].strip()
        for block in blocks(ROOT / "README.rst")
        if block.text.startswith(SETS_UP) and block.text.strip().endswith("demo")
    )
    source = tmp_path / "source"
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "_build")
    shutil.copytree(ROOT, source, ignore=leave_out)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=source,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"ok"' in done.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sessions of the pages, recorded now."""
    folder = tmp_path_factory.mktemp("sessions")
    command = [sys.executable, "-m", "tests.house.sessions", str(folder)]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE)
    return folder


@pytest.mark.parametrize("name", sorted(sessions.SESSIONS))
def test_each_session_that_is_shown_is_what_goes_over_the_wire(name: str, recorded: Path) -> None:
    shown = (ROOT / "docs" / "sessions" / f"{name}.txt").read_text(encoding="utf-8")
    assert (recorded / f"{name}.txt").read_text(encoding="utf-8") == shown


def test_each_session_that_a_page_shows_is_recorded() -> None:
    shown = {
        name
        for page in pages()
        for name in re.findall(r"literalinclude:: sessions/(\S+)\.txt", page.read_text(encoding="utf-8"))
    }
    assert shown == set(sessions.SESSIONS)


def test_the_protocol_page_has_each_field_of_a_request() -> None:
    text = (ROOT / "docs" / "protocol.rst").read_text(encoding="utf-8")
    fields = {*types_of(RequestFields), *types_of(RecipientFields), *LEGACY}
    assert not {name for name in fields if f"``{name}``" not in text and f'"{name}"' not in text}


def test_the_protocol_page_has_each_option_of_the_daemon() -> None:
    text = (ROOT / "docs" / "protocol.rst").read_text(encoding="utf-8")
    options = {option.rstrip("=") for option in Options().longOpt} - {"help", "version"}
    assert set(re.findall(r"^    \* - ``--([a-z-]+)", text, re.MULTILINE)) == options


def test_the_page_of_errors_has_each_error_and_tells_whether_it_is_temporary() -> None:
    text = (ROOT / "docs" / "errors.rst").read_text(encoding="utf-8")
    row = r"^    \* - ``(\w+)``\n      - (?:.+\n(?:        .+\n)*)      - (\w+)"
    told = dict(re.findall(row, text, re.MULTILINE))
    assert set(told) == set(errors.__all__) - {"DeliveryError"}
    for name, temporary in told.items():
        # "where the resolver said so", "with a 4xx": each instance knows.
        if name not in ("HostNotFound", "Refused"):
            assert temporary == ("yes" if getattr(errors, name).temporary else "no"), name


def test_the_page_of_security_names_tests_that_there_are() -> None:
    text = (ROOT / "docs" / "security.rst").read_text(encoding="utf-8")
    file, source, named = "", "", 0
    for name in re.findall(r"``([\w/]+\.py|test_\w+)``", text):
        if name.endswith(".py"):
            file = name
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        else:
            named += 1
            assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{name} is not in {file}"
    assert named > 100
    # None is written so that it escapes what stands above.
    assert all(re.fullmatch(r"\w+(\.py)?", name) for name in re.findall(r"``(test_[^`]*)``", text))


def test_no_file_names_a_place_on_this_machine() -> None:
    """What is true on one machine alone does not belong here."""
    place = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/")
    kinds = {".cfg", ".in", ".py", ".rst", ".sh", ".toml", ".txt", ""}
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in (".ci", "docs", "newsfragments", "tests", "twisted", "twisted_smtpclient"):
        files += [
            path for path in (ROOT / folder).rglob("*") if path.is_file() and "_build" not in path.parts
        ]
    found = [
        str(path)
        for path in files
        if path.suffix in kinds and place.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert len(files) > 50
    assert not found


def test_no_source_file_is_longer_than_a_reader_s_patience() -> None:
    """One idea a file, seldom more than 350 lines; at 450 it is sure to be two."""
    long = {}
    for path in sorted((ROOT / "twisted_smtpclient").rglob("*.py")):
        with tokenize.open(path) as source:
            count = sum(1 for _ in source)
        if count > 450:
            long[path.name] = count
    assert not long
