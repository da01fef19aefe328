"""
What is measured: the package as ``pip install`` makes it of this checkout, or
the checkout itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader, PathFinder
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "NotBuilt", "Package", "choose", "install", "sources"]

ROOT: Final = Path(__file__).resolve().parents[1]

#: That of this interpreter, so that what it compiles is what children can load.
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")

#: Seconds for the build; far more than a slow machine takes.
LONGEST_BUILD: Final = 900.0

#: What a wheel is made of, beside the files at the top.
_FOLDERS: Final = ("twisted_smtpclient", "twisted")


class NotBuilt(Exception):
    """There is no wheel, and why."""


@dataclass(frozen=True)
class Package:
    """
    The ``twisted_smtpclient`` of children.

    :ivar what: for reports.
    :ivar path: the folders in which they find it, and ``benchmarks``, whatever
        else is installed; it is in the first.
    """

    what: str
    path: tuple[Path, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Of a child that is to import it."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, self.path))}

    @property
    def compiled(self) -> bool:
        """Whether the way of a mail is compiled, as far as children can load that."""
        spec = PathFinder.find_spec("pipeline", [str(self.path[0] / "twisted_smtpclient" / "smtp")])
        return spec is not None and isinstance(spec.loader, ExtensionFileLoader)

    @property
    def description(self) -> str:
        """What it is, and whether it is compiled."""
        return f"{self.what}, {'compiled' if self.compiled else 'not compiled'}"


def sources() -> Package:
    """The checkout as it stands."""
    return Package("sources", (ROOT,))


def install(folder: Path, pip: Sequence[str] = PIP) -> Package:
    """
    A wheel of the checkout, installed below ``folder``, where it stays.

    :raises NotBuilt: with what pip said last.
    """
    source, target, alone = (folder / name for name in ("source", "package", "alone"))
    _copy(source)
    command = [*pip, "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    try:
        done = subprocess.run(  # noqa: S603  # pip, on our source
            command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_BUILD, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(str(error)) from None
    if done.returncode:
        raise NotBuilt(done.stderr.strip().rpartition("\n")[2][:200] or f"exit status {done.returncode}")
    # Not the checkout: it has the sources of the package too.
    alone.mkdir()
    (alone / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
    return Package("wheel", (target, alone))


def choose(folder: Path, *, pure: bool, tell: Callable[[str], None], pip: Sequence[str] = PIP) -> Package:
    """The sources where that is wanted, or where there is no other way; else a wheel."""
    if pure:
        return sources()
    tell("building the wheel that is measured, which takes about a minute (--pure measures the sources)")
    try:
        package = install(folder, pip)
    except NotBuilt as error:
        tell(f"the wheel could not be built, so the sources are measured, not what users get: {error}")
        return sources()
    if not package.compiled:
        tell("the wheel is not compiled, for want of a C compiler or because it was to be pure")
    return package


def _copy(source: Path) -> None:
    # Building leaves things behind, and takes up what an earlier build has left.
    source.mkdir()
    for each in ROOT.iterdir():
        if each.is_file():
            shutil.copy(each, source)
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
