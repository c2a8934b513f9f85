"""The rules of sessions in web applications stand here, once for every framework, without I/O.

`pgsession.contrib` wraps them for one framework each: use that where there is one for yours.
"""

from __future__ import annotations

from pgsession.web.cookie import CookiePolicy, CookieSettings
from pgsession.web.keys import derive_key
from pgsession.web.rules import OnConflict, SessionRules, releasing, replace
from pgsession.web.session import SessionConflict, WebSession
from pgsession.web.steps import Step, Steps, run, run_async

__all__ = [
    "CookiePolicy",
    "CookieSettings",
    "OnConflict",
    "SessionConflict",
    "SessionRules",
    "Step",
    "Steps",
    "WebSession",
    "derive_key",
    "releasing",
    "replace",
    "run",
    "run_async",
]
