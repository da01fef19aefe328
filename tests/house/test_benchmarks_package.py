"""What the benchmarks measure is what users get, or they say that it is not."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from benchmarks.children import Programs
from benchmarks.measure import Measured, run_once
from benchmarks.package import ROOT, NotBuilt, Package, choose, install, sources
from benchmarks.results import Results, machine
from benchmarks.rows import CONNECTIONS, Contender, Row
from benchmarks.table import pages, terminal

#: Installs as pip does, as far as the benchmarks can tell, and builds nothing.
PIP = """
import pathlib, shutil, sys
target, source = map(pathlib.Path, sys.argv[-2:])
for name in ("twisted_smtpclient", "twisted"):
    shutil.copytree(source / name, target / name)
"""

#: The same, and it compiles; nobody here loads what comes of that.
COMPILING_PIP = f"""{PIP}
(target / "twisted_smtpclient/smtp/pipeline{EXTENSION_SUFFIXES[0]}").touch()
"""

FAILING_PIP = """
import sys
sys.exit("Looking for setuptools\\nERROR: nothing is to be had here")
"""

WHERE = """
import benchmarks.senders.agent, twisted_smtpclient, twisted.plugins.twisted_smtpclient_plugin as plugin
print(twisted_smtpclient.__file__, plugin.__file__, sep="\\n")
"""


def pip(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def imported_by(package: Package, folder: Path) -> list[Path]:
    """Where a child finds the package, and its plugin."""
    done = subprocess.run(
        [sys.executable, "-c", WHERE],
        cwd=folder,
        env=package.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def test_children_import_the_installed_package_and_the_plugin_that_came_with_it(tmp_path: Path) -> None:
    package = install(tmp_path, pip(PIP))

    assert imported_by(package, tmp_path) == [
        tmp_path / "package/twisted_smtpclient/__init__.py",
        tmp_path / "package/twisted/plugins/twisted_smtpclient_plugin.py",
    ]


def test_children_import_the_checkout_where_its_sources_are_measured(tmp_path: Path) -> None:
    assert imported_by(sources(), tmp_path) == [
        ROOT / "twisted_smtpclient/__init__.py",
        ROOT / "twisted/plugins/twisted_smtpclient_plugin.py",
    ]


@pytest.mark.parametrize("contender", [Contender.API, Contender.DAEMON])
def test_the_installed_package_is_measured(contender: Contender, tmp_path: Path) -> None:
    programs = Programs(tmp_path, install(tmp_path, pip(PIP)))

    measured = run_once(Row(CONNECTIONS, contender, connections=1, depth=10), programs, 20)

    assert measured.messages == 20


def test_nothing_is_built_in_the_checkout(tmp_path: Path) -> None:
    install(tmp_path, pip(PIP))

    source = tmp_path / "source"
    assert {"setup.py", "setup.cfg", "pyproject.toml", "README.rst"} <= {
        each.name for each in source.iterdir()
    }
    assert {each.name for each in source.iterdir() if each.is_dir()} == {"twisted_smtpclient", "twisted"}
    assert not any(source.rglob("__pycache__"))


@pytest.mark.parametrize(("script", "compiled"), [(PIP, False), (COMPILING_PIP, True)])
def test_a_wheel_is_known_for_compiled_or_not(script: str, compiled: bool, tmp_path: Path) -> None:
    told: list[str] = []

    package = choose(tmp_path, pure=False, tell=told.append, pip=pip(script))

    assert package.compiled is compiled
    assert package.description == ("wheel, compiled" if compiled else "wheel, not compiled")
    assert "about a minute" in told[0]
    assert [line for line in told[1:] if "not compiled" in line] == told[1:]
    assert len(told) == (1 if compiled else 2)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (pip(FAILING_PIP), "ERROR: nothing is to be had here"),
        (pip("raise SystemExit(3)"), "exit status 3"),
        (["/nowhere/pip"], "No such file"),
    ],
)
def test_where_no_wheel_can_be_built_the_sources_are_measured_and_it_is_told(
    command: list[str], why: str, tmp_path: Path
) -> None:
    told: list[str] = []

    package = choose(tmp_path, pure=False, tell=told.append, pip=command)

    assert package == sources()
    assert "the sources are measured" in told[1]
    assert why in told[1]


def test_who_asks_for_the_wheel_itself_is_told_why_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="nothing is to be had"):
        install(tmp_path, pip(FAILING_PIP))


def test_the_sources_are_measured_where_they_are_wanted_and_nothing_is_built(tmp_path: Path) -> None:
    told: list[str] = []

    assert choose(tmp_path, pure=True, tell=told.append, pip=pip(FAILING_PIP)) == sources()
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_both_reports_say_what_was_measured() -> None:
    about = {**machine(), "settings": "quick", "sink": "in C", "package": "wheel, compiled"}
    results = Results([Measured(Row(CONNECTIONS, Contender.API))], quick=True)

    for report in (terminal, pages):
        assert "package: wheel, compiled;" in next(iter(report(results, [], about)))
