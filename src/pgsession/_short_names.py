"""Short names stand for session ids in the texts of errors, in log lines and in what `repr()` shows.

Who holds an id may read the session, and logs go far. An operator who has an id, or the database, finds the lines that
are about it: the short name is the start of the SHA-256 of the id's 16 bytes. In SQL it is
`left(encode(sha256(uuid_send(id)), 'hex'), 8)`.
"""

from __future__ import annotations

import hashlib
import re
from uuid import UUID

_DIGITS = 8
_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def short_name(session_id: UUID) -> str:
    """Return the 8 hexadecimal digits that stand for a session id."""
    return hashlib.sha256(session_id.bytes).hexdigest()[:_DIGITS]


def without_ids(text: str) -> str:
    """Return the text with short names for the ids in it."""
    return _ID.sub(lambda found: short_name(UUID(found[0])), text)


def shown(resource: str) -> str:
    """Return the name of a lock's resource in quotes, with short names for the ids in it."""
    return repr(without_ids(resource))
