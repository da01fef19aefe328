"""
What a user gets from ``pip install``: built, installed in a fresh environment
and looked at from another folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "twisted/plugins/twisted_smtpclient_plugin.py"
ENDPOINTS = "twisted/plugins/twisted_smtpclient_endpoints.py"

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, without our own PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("build")
    # A copy, so that nothing old in build/ slips in and nothing is left here.
    source = folder / "source"
    leave_out = shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__", "_build", "htmlcov"
    )
    shutil.copytree(ROOT, source, ignore=leave_out)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", source, cwd=folder)
    return {
        "sdist": next((folder / "dist").glob("*.tar.gz")),
        "wheel": next((folder / "dist").glob("*.whl")),
    }


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(
    request: pytest.FixtureRequest, distributions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of programs of a fresh environment with nothing but the package."""
    folder = tmp_path_factory.mktemp(f"from_{request.param}")
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    pip = (sys.executable, "-m", "pip", "--python", str(programs / "python"))
    run(*pip, "install", "--quiet", distributions[request.param], cwd=folder)
    return programs


@pytest.mark.parametrize("program", ["twistd", "twist"])
def test_the_plugin_is_found_after_a_plain_install(installed: Path, program: str, tmp_path: Path) -> None:
    listed = run(installed / program, "--help", cwd=tmp_path)
    assert any(line.split()[:1] == ["smtpclient"] for line in listed.splitlines())


@pytest.mark.parametrize("program", ["twistd", "twist"])
def test_the_daemon_tells_its_options_after_a_plain_install(
    installed: Path, program: str, tmp_path: Path
) -> None:
    options = run(installed / program, "smtpclient", "--help", cwd=tmp_path)
    assert "--listen" in options
    assert "--drain-timeout" in options


def test_the_endpoint_of_ours_is_known_after_a_plain_install(installed: Path, tmp_path: Path) -> None:
    code = (
        "from twisted.internet.interfaces import IStreamServerEndpointStringParser as Parser;"
        "from twisted.plugin import getPlugins;"
        "print('mtls' in {parser.prefix for parser in getPlugins(Parser)})"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "True\n"


def test_the_package_is_typed_for_those_who_install_it(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.resources, twisted_smtpclient;"
        "print(importlib.resources.files(twisted_smtpclient).joinpath('py.typed').is_file())"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "True\n"


def test_every_module_can_be_imported_without_the_extras_but_those_for_rabbitmq(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "import pkgutil, importlib, twisted_smtpclient as package\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    try:\n"
        "        module.name.endswith('__main__') or importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        assert error.name == 'pika', error.name\n"
        "        print(module.name.partition('.gateway.amqp.')[2])\n"
    )
    lacking = run(installed / "python", "-W", "error", "-c", code, cwd=tmp_path)
    assert lacking.split() == ["address", "connection", "frames", "gateway", "job", "properties"]


def test_the_wheel_holds_the_package_and_the_plugins_and_nothing_else(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        names = wheel.namelist()
    code = {name for name in names if ".dist-info/" not in name and not name.endswith(".so")}
    in_the_tree = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed")
        for path in (ROOT / "twisted_smtpclient").rglob(pattern)
    }
    assert code == in_the_tree | {PLUGIN, ENDPOINTS}
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_way_of_a_mail_is_compiled_and_its_sources_are_there_too(installed: Path, tmp_path: Path) -> None:
    code = (
        "from twisted_smtpclient.client import dispatch\n"
        "from twisted_smtpclient.gateway import _strings\n"
        "from twisted_smtpclient.smtp import _forward_path, _line_ends, pipeline, policy\n"
        "modules = (dispatch, pipeline, _strings, _line_ends, _forward_path, policy)\n"
        "print(*(module.__file__.rpartition('.')[2] for module in modules))"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path).split() == ["so"] * 5 + ["py"]


def test_a_wheel_is_pure_where_that_is_wanted(
    distributions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWISTED_SMTPCLIENT_PURE", "1")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, distributions["sdist"], cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_a_wheel_is_built_where_there_is_no_compiler(
    distributions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, distributions["sdist"], cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".so")]


def test_a_wheel_is_built_without_what_the_compiler_objects_to(
    distributions: dict[str, Path], tmp_path: Path
) -> None:
    with tarfile.open(distributions["sdist"]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    with (source / "twisted_smtpclient/smtp/steps.py").open("a") as steps:
        steps.write('NUMBER: int = "none"\n')
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheel", source, cwd=tmp_path)
    with zipfile.ZipFile(next((tmp_path / "wheel").glob("*.whl"))) as wheel:
        compiled = [name for name in wheel.namelist() if name.endswith(".so")]
    # What is C by hand is not that compiler's.
    assert sorted(Path(name).name.partition(".")[0] for name in compiled) == [
        "_forward_path",
        "_line_ends",
        "_strings",
    ]


def test_the_sdist_holds_what_it_takes_to_test_and_to_read(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"README.rst", "CHANGELOG.rst", "LICENSE", "setup.cfg", "docs/index.rst", "tests/conftest.py"}
    assert wanted <= names
    assert {PLUGIN, ENDPOINTS} <= names
    assert not [name for name in names if name.endswith((".pyc", ".so")) or "/_build/" in name]
