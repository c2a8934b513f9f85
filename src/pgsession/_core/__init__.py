"""The compiled core has what a read from memory needs, without I/O. Its sources are in `cython/pgsession/_core/`.

The stubs (`.pyi`) are here; they say what each module gives to Python:

    reader          the bases of both managers: answers a hit
    cache           records by session id, bounded, least recently used leaves first
    arena           memory that the processes of a host share
    record          a session as the database held it at one version
    record_bytes    a record as bytes, as it lies in an arena
    hit             the hit path: from a key to a session
    session         a record and one caller's pending changes, as a mapping; the parts of it are
                    session_reading, _changing, _saving, _edits, _nested_changes
    values          encodes and decodes attribute values
    absences        ids of which the database said a moment ago that there is no session
    accesses        accesses to be written whose session has left the cache
    clock           the node's clock, mapped to the database's; the rules for moments and durations
    key             the rule for session ids
    changes         what a notification tells of changed sessions
    arguments       the rules for texts, flags and whole numbers
    token           opens a session token
    token_cache     tokens that were verified before
    completed       an awaitable whose result is there already

`cpython_tricks` is where the core leans on how CPython is made; `table.h` is the table and the order of last use;
`arena.h` is the arena, `sharing.h` what is added to it here.
"""
