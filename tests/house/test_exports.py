"""The public names: pinned, and the very objects that they re-export."""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Iterator
from types import FunctionType, ModuleType

import pytest

import twisted_smtpclient
import twisted_smtpclient.errors
import twisted_smtpclient.testing

#: Packages and modules whose ``__all__`` is what users import from.
PUBLIC = [twisted_smtpclient, twisted_smtpclient.testing, twisted_smtpclient.errors]


def modules() -> list[ModuleType]:
    return [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(twisted_smtpclient.__path__, "twisted_smtpclient.")
        if not found.name.endswith("__main__")
    ]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names_are_there_and_named_once(module: ModuleType) -> None:
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize("module", PUBLIC[:2], ids=lambda module: module.__name__)
def test_public_names_are_the_objects_that_they_re_export(module: ModuleType) -> None:
    homes = {home.__name__: home for home in modules()}
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            continue
        home = getattr(value, "__module__", None)
        assert home in homes, f"{name} is none of ours: {home}"
        assert getattr(homes[home], name) is value


def public_members(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public names, and what is public of the classes among them and of our bases of those."""
    for name in module.__all__:
        value = getattr(module, name)
        yield name, value
        if not isinstance(value, type) or issubclass(value, enum.Enum):
            continue
        for kind in value.__mro__:
            if not kind.__module__.startswith("twisted_smtpclient"):
                continue
            for inner, member in vars(kind).items():
                # Those of Twisted's interfaces, camelCase, are described there.
                ours = not inner.startswith("_") and inner == inner.lower()
                if ours and isinstance(member, FunctionType | property | classmethod):
                    yield f"{name}.{inner}", member


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names_and_their_methods_have_a_docstring(module: ModuleType) -> None:
    assert not [name for name, value in public_members(module) if not value.__doc__]


def test_the_front_door_gives_nothing_that_it_does_not_name() -> None:
    """What can be imported by chance would have to be kept for good."""
    visible = {name for name in vars(twisted_smtpclient) if not name.startswith("_")}
    folders = {found.name for found in pkgutil.iter_modules(twisted_smtpclient.__path__)}
    assert visible - folders - {"annotations"} == set(twisted_smtpclient.__all__) - {"errors"} - folders


def test_all_that_an_application_needs_is_at_the_front_door() -> None:
    needed = {
        "Content",
        "DeliveryAgent",
        "DeliveryError",
        "DeliveryResult",
        "Envelope",
        "RecipientStatus",
        "Server",
        "deliver",
    }
    assert needed <= set(twisted_smtpclient.__all__)


def test_errors_are_all_exported_and_have_the_contracts_names() -> None:
    errors = twisted_smtpclient.errors
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DeliveryError)
    }
    assert defined == set(errors.__all__)
