"""Data owners decide which version of a confidential app may read their data."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

__version__ = "0.1.0"


def _configure_openssl() -> None:
    """Let OpenSSL read our settings, and none that the environment names (I17).

    It reads them once, when cryptography is first imported, so this must come first;
    `ratls.context.self_test` finds out if it did not.
    """
    before = os.environ.get("OPENSSL_CONF")
    os.environ["OPENSSL_CONF"] = str(Path(__file__).with_name("openssl.cnf"))
    importlib.import_module("cryptography.hazmat.bindings._rust")
    del os.environ["OPENSSL_CONF"]
    if before is not None:  # for the programs that we start
        os.environ["OPENSSL_CONF"] = before


_configure_openssl()
