"""Tests that need the package as Python, and not compiled (see ``setup.py``)."""

from __future__ import annotations

import pytest

from twisted_smtpclient.smtp import pipeline

#: For a test that replaces a function within.
interpreted = pytest.mark.skipif(
    not pipeline.__file__.endswith(".py"), reason="what is compiled cannot be replaced"
)
