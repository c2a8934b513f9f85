"""The rules of sessions in web applications stand here, once for every framework, without I/O.

`pgsession.contrib` wraps them for one framework each: use that where there is one for yours.
"""

from __future__ import annotations

from pgsession.web.keys import derive_key

__all__ = ["derive_key"]
