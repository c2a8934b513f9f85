from pgsession._core.cache import Cache
from pgsession._core.record import Record
from pgsession._core.session import Session

def session_of(
    cache: Cache,
    record: Record,
    *,
    from_cache: bool,
    accessed: int | None = None,
    by_older_token: bool = False,
) -> Session: ...
