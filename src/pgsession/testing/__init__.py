"""This is for the tests of services that use pgsession: a pytest plugin, which docs/testing.md shows, and its types.

With pytest nothing has to be imported or configured: `pip install 'pgsession[testing]'` brings all. Nothing else of
pgsession imports this package.
"""

from __future__ import annotations

from pgsession.testing.clock import Clock
from pgsession.testing.outage import Outage

__all__ = ["Clock", "Outage"]
