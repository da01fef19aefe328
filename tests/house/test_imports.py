"""
The law of imports, read from the sources: nothing is run to find out.

``errors`` <- ``smtp`` <- ``client``, ``gateway``, ``metrics`` <- ``service``
<- ``tap``, ``__main__`` <- the plugin.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "twisted_smtpclient"
PLUGIN = ROOT / "twisted" / "plugins" / "twisted_smtpclient_plugin.py"
ENDPOINTS = PLUGIN.with_name("twisted_smtpclient_endpoints.py")

#: What each part may know of the package beside itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "smtp": {"errors"},
    "client": {"errors", "smtp"},
    "gateway": {"errors", "smtp"},
    "metrics": {"errors", "smtp"},
    # What an operator sees: neither mails nor requests.
    "operations": {"metrics"},
    "testing": {"errors", "smtp", "client", "gateway", "metrics"},
    "service": {"errors", "smtp", "client", "gateway", "metrics", "operations"},
    "tap": {"errors", "smtp", "client", "gateway", "metrics", "operations", "service"},
    # The public names: of what an application uses, not of the daemon.
    "": {"errors", "smtp", "client"},
    "cli": {"", "errors", "smtp", "client", "gateway", "metrics", "service", "tap", "testing"},
    "__main__": {"", "errors", "smtp", "client", "gateway", "metrics", "service", "tap", "testing", "cli"},
}

#: No I/O, no clock, no log, no JSON where only the RFCs are known.
FOREIGN_TO_SMTP = {
    "asyncio",
    "datetime",
    "io",
    "json",
    "logging",
    "msgspec",
    "os",
    "select",
    "socket",
    "ssl",
    "sys",
    "threading",
    "time",
    "twisted",
    "zope",
}


def sources() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of the house that a module of ours is in; "" for its front door."""
    words = module.split(".")
    return words[1] if len(words) > 1 else ""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def nodes(tree: ast.AST, *, type_checking: bool, functions: bool) -> Iterator[ast.AST]:
    """All nodes below ``tree``, with or without those that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child) and not type_checking:
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        yield child
        yield from nodes(child, type_checking=type_checking, functions=functions)


def imported(path: Path, *, type_checking: bool = True, functions: bool = True) -> set[str]:
    """Absolute names of all that a file imports: ``a.b.c`` for ``from a.b import c``."""
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in nodes(tree, type_checking=type_checking, functions=functions):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == PACKAGE}


def known_parts(name: str) -> str:
    """
    The part that an imported name of ours is in.

    ``from twisted_smtpclient import deliver`` is of the front door, ``from .
    import smtp`` of ``smtp``.
    """
    part = part_of(name)
    place = ROOT / PACKAGE / part
    return part if place.is_dir() or place.with_suffix(".py").exists() else ""


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_each_module_imports_only_what_lies_below_it(path: Path) -> None:
    part = part_of(module_name(path))
    assert part in ALLOWED, f"{part} has no place in the law of imports"
    # errors names a type of smtp for its annotations alone: the one exception.
    names = ours(imported(path, type_checking=part != "errors"))
    forbidden = {name for name in names if known_parts(name) not in ALLOWED[part] | {part}}
    assert not forbidden


@pytest.mark.parametrize("path", sorted((ROOT / PACKAGE / "smtp").rglob("*.py")), ids=module_name)
def test_smtp_knows_no_io_no_clock_no_log_and_no_json(path: Path) -> None:
    # It stands in io, and looks at the line ends of a string.
    names = imported(path) - {"io.IncrementalNewlineDecoder"}
    assert not {name.split(".")[0] for name in names} & FOREIGN_TO_SMTP


def test_errors_sees_smtp_only_for_its_annotations() -> None:
    path = ROOT / PACKAGE / "errors.py"
    assert ours(imported(path, type_checking=False)) == set()
    assert ours(imported(path)) == {f"{PACKAGE}.smtp.result.RecipientStatus"}


@pytest.mark.parametrize("path", [*sources(), PLUGIN, ENDPOINTS], ids=module_name)
def test_no_module_imports_the_reactor_when_it_is_imported(path: Path) -> None:
    """
    Whoever imports the reactor installs one, and takes the choice from the
    application; a function may import it as its default.
    """
    names = imported(path, type_checking=False, functions=False)
    assert not {name for name in names if name.startswith("twisted.internet.reactor")}


@pytest.mark.parametrize(
    "path", [path for path in sources() if part_of(module_name(path)) == "gateway"], ids=module_name
)
def test_the_gateway_writes_no_smtp_verb(path: Path) -> None:
    verbs = {"EHLO", "HELO", "LHLO", "STARTTLS", "RSET", "BDAT", "RCPT TO", "MAIL FROM"}
    strings = {
        node.value.strip() if isinstance(node.value, str) else node.value.decode("latin-1").strip()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    }
    assert not strings & verbs


def test_the_plugin_imports_the_service_maker_and_nothing_else() -> None:
    """Each ``twistd --help`` on the machine imports it."""
    assert imported(PLUGIN) <= {
        "__future__.annotations",
        "twisted.application.service.ServiceMaker",
    }
    assert "twisted.application.service.ServiceMaker" in imported(PLUGIN)


def test_the_endpoint_s_plugin_imports_none_of_ours_before_it_is_used() -> None:
    """Whoever names any endpoint that is a plugin imports it."""
    assert not ours(imported(ENDPOINTS, functions=False))


def test_twisted_plugins_is_no_package_of_ours() -> None:
    """An ``__init__.py`` there would hide Twisted itself."""
    assert not list((ROOT / "twisted").rglob("__init__.py"))
