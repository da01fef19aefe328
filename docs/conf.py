"""How Sphinx builds these pages: ``sphinx-build -W -n docs docs/_build``."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[1]

# The pages are of this checkout, whatever is installed.
sys.path.insert(0, str(ROOT))

_metadata = configparser.ConfigParser()
_metadata.read(ROOT / "setup.cfg", encoding="utf-8")

project = "twisted_smtpclient"
author = "the twisted_smtpclient authors"
copyright = "2026, the twisted_smtpclient authors"
release = version = _metadata["metadata"]["version"]

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A verdict for every recipient", "page_width": "1020px"}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

# Other projects' names are no links: building these pages needs no network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(twisted\.(internet|mail|python|protocols|web)|collections|enum|typing|OpenSSL)\..*"),
    ("py:.*", r"<InterfaceClass .*>"),
    # Nor are names inside of this one that are not for its users.
    ("py:.*", r"twisted_smtpclient\.(client|smtp|testing)\.\w+\.\w+"),
    ("py:data", r"(\w+\.)?[A-Z_]+"),
    ("py:.*", r"I[A-Z]\w+( \| None)?|list\[tuple\[str|Parameters|Reactor|Resolver|TrustRoot"),
]

#: Where public names are documented; docstrings may call them by their homes.
_DOORS = ("twisted_smtpclient", "twisted_smtpclient.testing")


def _link_to_public_name(app, environment, node, content):
    """Find ``twisted_smtpclient.smtp.policy.Server`` as ``twisted_smtpclient.Server``."""
    if node.get("refdomain") != "py":
        return None
    domain = environment.domains["py"]
    words = node["reftarget"].split(".")
    # An attribute of a field list has no place of its own; its class has.
    for name in (words[-1:], words[-2:], words[-2:-1]):
        for door in _DOORS:
            found = domain.objects.get(".".join([door, *name]))
            if name and found is not None:
                return make_refnode(
                    app.builder, node["refdoc"], found.docname, found.node_id, content, node["reftarget"]
                )
    return None


#: What the types of smtp/given.py stand for.
_GIVEN = {
    "OptionalText": "str | None",
    "OptionalParameters": "Mapping[str, str | None] | None",
    "OptionalNotify": "Collection[Notify] | None",
    "OptionalDSN": "DSN | None",
    "TryOrDepend": "Mode",
    "Addresses": "Iterable[str | Recipient]",
    "Octets": "bytes",
    "Flag": "bool",
    "Text": "str",
}


def _name_types(app, what, name, value, options, signature, returns):
    """Write zope's interfaces as any other type, and what is given as what it is."""
    interface = re.compile(r"<InterfaceClass (?:\w+\.)*(\w+)>")
    given = re.compile(rf"(?<=: )({'|'.join(_GIVEN)})\b")

    def written(text):
        return text and given.sub(lambda match: _GIVEN[match[1]], interface.sub(r"\1", text))

    return written(signature), written(returns)


def setup(app):
    app.connect("missing-reference", _link_to_public_name)
    app.connect("autodoc-process-signature", _name_types)
