"""A read gives what is shared through the record as it is; all else is decoded and, if it is mutable, kept.

Decoding runs the caller's code. So a record is held while it is decoded from, and what was decoded is kept only if the
session still has of that attribute what it had before; else it is read again.

After a save the session reads as others read it: what it has saved is decoded, and the caller's own object is given only
where it looks the same.
"""

from cpython.object cimport PyObject

from pgsession._core.alike cimport looks_alike
from pgsession._core.coding cimport comparable, from_plain, has_codec, opened
from pgsession._core.session_edits cimport (
    READ, SET, SHORT, Edit, add_view, edit_of, edits_of, is_set, keep_edit, known_key, live_place, make_room, new_edit, record_of,
    track,
)
from pgsession._core.session_nested_changes cimport Found, current_value, nested_change, says
from pgsession._core.record cimport (
    Span, decoded_at, place_of, share, share_typed, shared_typed, value_of, version_of,
)
from pgsession._core.values cimport (
    Plan, Py_TYPE, decode_plain, decode_typed, is_container, is_plain, plan_of, reencode,
)

from typing import Any

from pgsession._core.session_edits import HELD, MISSING

cdef object ANY = Any                  # the same, without looking up a global name
cdef object NOTHING = MISSING
cdef object SAVED = HELD
cdef object AGAIN = object()           # read it again: the attribute was changed while it was decoded
cdef int64_t looks = 0                  # at attributes, by all popitem(), for tests
cdef enum:
    TRIES = 100
    VIEWS = 64                          # objects for one attribute, before those that nobody has any more are forgotten

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)


# ---- what is there ----

cdef bint is_there(SessionState session, str key) except -1:
    """Return True if the session has a live attribute of this key."""
    cdef Edit edit = edit_of(session, key)
    cdef PyObject *record = session.record
    if edit is None or edit.kind == READ:
        return live_place(session, <Record> record, key) >= 0
    return is_set(session, edit)


cdef list live_keys(SessionState session):
    """Return the keys of the live attributes: those of the record, then those that were added."""
    cdef Record record = record_of(session)
    cdef list keys = [key for key in record.shape.keys if is_there(session, key)]
    cdef Edit edit
    for edit in edits_of(session):
        if edit.kind == SET and place_of(record, edit.key) < 0 and is_set(session, edit):
            keys.append(edit.key)
    return keys


cdef str last_key(SessionState session):
    """Return the last of live_keys(), or None, without making them all: popitem() empties a session in linear time."""
    cdef str key = last_added(session)
    if key is None:
        key = last_stored(session)
    if key is None and session.passed:
        session.passed = 0      # an attribute that has expired may be back, if the clock was corrected
        key = last_stored(session)
    return key


cdef str last_added(SessionState session):
    """Return the last key that was added, or None.

    What was read or deleted since stands behind it. After many of those the edits are put in order, or popitem() would
    pass them each time.
    """
    global looks
    cdef Record record = record_of(session)
    cdef dict edits = session.edits     # held: making the view of its values may run a finalizer that saves the session
    cdef Py_ssize_t passed = 0
    cdef Edit edit
    if session.nothing_added:
        return None
    session.nothing_added = True        # before the look: what is set meanwhile says otherwise, see note_set()
    if edits is not None:
        trim(edits)
    known = edits_of(session) if edits is None else edits.values()
    for edit in reversed(known):
        looks += 1
        if is_added(session, record, edit):
            session.nothing_added = False
            if passed > SHORT:
                put_added_last(session)
            return edit.key
        passed += 1
    return None


cdef int trim(dict edits) except -1:
    """Let a dict forget how many of its last items were deleted: who looks from its end passes the place of each.

    The last item is taken out and put back.
    """
    try:
        key, edit = edits.popitem()     # what may run other code, making the pair, comes before the change
    except KeyError:
        return 0
    edits[key] = edit
    return 0


cdef inline bint is_added(SessionState session, Record record, Edit edit) noexcept:
    """Return True for a live attribute that the record has not."""
    return edit.kind == SET and place_of(record, edit.key) < 0 and is_set(session, edit)


cdef int put_added_last(SessionState session) except -1:
    """Put the edits that add an attribute behind all others, each kind in its order."""
    global looks
    cdef dict ordered = {}              # first: making it may run a finalizer
    cdef Record record = record_of(session)
    cdef dict edits = session.edits
    cdef Edit edit
    cdef bint added
    if edits is None:
        return 0
    for added in (False, True):
        for edit in edits.values():
            looks += 1
            if is_added(session, record, edit) == added:
                ordered[edit.key] = edit
    if len(ordered) == len(edits):      # else one has expired between both looks
        session.edits = ordered
    return 0


cdef str last_stored(SessionState session):
    global looks
    cdef Record record = record_of(session)
    cdef tuple keys = record.shape.keys
    cdef Py_ssize_t place = <Py_ssize_t> record.count - session.passed
    cdef str key
    while place > 0:
        place -= 1
        looks += 1
        key = keys[place]
        if is_there(session, key):
            break
        session.passed += 1
    else:
        return None
    return key


cdef int64_t looks_so_far() noexcept:
    return looks


# ---- reading ----

cdef object read(SessionState session, str key, object type_):
    """Return the value of `key` as `type_`, or NOTHING."""
    cdef PyObject *record = session.record
    cdef Py_ssize_t place
    cdef int tried
    if key is None:
        return NOTHING
    if not session.tracked:
        place = live_place(session, <Record> record, key)
        if place < 0:
            return NOTHING
        value = read_stored(session, <Record> record, <uint32_t> place, None, type_)
        if value is not AGAIN:
            return value
    for tried in range(TRIES):
        value = read_once(session, key, type_)
        if value is not AGAIN:
            return value
    return refuse_restless(key)


cdef object refuse_restless(str key):
    raise RuntimeError(f"attribute {key!r} was changed each of the {TRIES} times that it was decoded")


cdef object read_once(SessionState session, str key, object type_):
    cdef Edit edit = edit_of(session, key)
    cdef Record record = record_of(session)
    cdef Py_ssize_t place
    if edit is not None and edit.kind != READ:
        return read_set(session, edit, type_) if is_set(session, edit) else NOTHING
    place = live_place(session, record, key)
    if place < 0:
        return NOTHING
    if edit is not None:
        return read_again(session, record, <uint32_t> place, edit, type_)
    return read_stored(session, record, <uint32_t> place, None, type_)


cdef object read_stored(SessionState session, Record record, uint32_t place, Edit edit, object type_):
    """Return a value of the record, or AGAIN; `edit`: what the session knows of it, None or something read."""
    cdef PyObject *shared = decoded_at(record, place)
    if type_ is ANY:
        if shared != NULL and is_plain(<object> shared):
            return <object> shared
        return decode_untyped(session, record, place, edit)
    if shared == NULL or <PyObject *> Py_TYPE(<object> shared) != <PyObject *> type_ or has_codec(session):
        shared = shared_typed(record, place, type_)
    return <object> shared if shared != NULL else decode_as(session, record, place, edit, type_)


cdef object decode_fresh(SessionState session, Record record, uint32_t place, object key):
    """Return a value of the record, read without a type, for a session that has nothing of its own."""
    value = decode_untyped(session, record, place, None)
    return read(session, known_key(key), ANY) if value is AGAIN else value


cdef object decode_untyped(SessionState session, Record record, uint32_t place, Edit edit):
    cdef Record held = record
    if has_codec(session):
        return decode_by_codec(session, held, place, edit, ANY)
    value = decode_plain(held, place)
    if is_plain(value):
        share(held, place, value)
        return value
    return keep_read(session, held, place, edit, ANY, value, None)


cdef object decode_as(SessionState session, Record record, uint32_t place, Edit edit, object type_):
    cdef Record held = record
    if has_codec(session):
        return decode_by_codec(session, held, place, edit, type_)
    cdef Plan plan = plan_of(type_)
    cdef Span span = value_of(held, place)
    value = decode_typed(held.shape.keys[place], span, plan)
    if not plan.shareable:
        before = None if plan.repeatable else reencode(value)
        return keep_read(session, held, place, edit, type_, value, before)
    if <PyObject *> Py_TYPE(value) == <PyObject *> type_ and is_container(span):
        share(held, place, value)           # without a type it is mutable, so the place is free
    else:
        share_typed(held, place, type_, value)
    return value


cdef object decode_by_codec(SessionState session, Record record, uint32_t place, Edit edit, object type_):
    """Return a value of the record that has gone through the codec, or AGAIN; only what is plain is shared."""
    cdef str key = record.shape.keys[place]
    value = decode_opened(session, key, opened(session, record, place), type_)
    if not is_plain(value):
        return keep_read(session, record, place, edit, type_, value, comparable(session, key, value))
    if type_ is ANY:
        share(record, place, value)
    else:
        share_typed(record, place, type_, value)
    return value


cdef object decode_opened(SessionState session, str key, bytes encoded, object type_):
    cdef Span span
    span.data = encoded
    span.length = <uint32_t> len(encoded)
    value = decode_typed(key, span, plan_of(type_))
    return from_plain(session, key, value) if type_ is ANY and has_codec(session) else value


cdef object keep_read(SessionState session, Record record, uint32_t place, Edit edit, object type_, object value,
                      bytes before):
    """Keep a mutable value: it belongs to this session, which finds at save whether it was changed.

    Returns:
        The value, or the caller's own object that looks the same; AGAIN, and nothing is kept, where the session no
        longer has what this was read from.
    """
    cdef str key = record.shape.keys[place]
    cdef int64_t base = version_of(record, place)
    cdef Edit made
    if not session.tracked and type_ is ANY and before is None and session.record == <PyObject *> record:
        session.lone = value
        session.lone_key = key
        session.lone_base = base
        track(session)
        return value
    made = new_edit(READ, key, type_, value)
    made.before = before
    made.base = base
    if edit is not None:
        return give_view(session, record, edit, None, made)
    make_room(session)
    if edit_of(session, key) is not None or not is_same(session, record, key, base):
        return AGAIN
    keep_edit(session, made)
    return value


cdef object give_view(SessionState session, Record record, Edit edit, Found found, Edit made):
    """Return the caller's own object that was saved, where it looks like this view of it, else that; or AGAIN.

    `found` is what has been changed since, None: nothing. `record` is what the view was read of, None where that is the
    session's own change.
    """
    cdef Edit own = edit
    while own is not None:
        if own.type is SAVED and (found is None or says(found, own)) and looks_alike(made.value, own.value):
            break
        own = own.next
    if edit_of(session, edit.key) is not edit:          # the comparison may have run other code
        return AGAIN
    if record is not None and not is_same(session, record, edit.key, made.base):
        return AGAIN
    if own is None or own.type is not SAVED:
        add_view(edit, made)
        return made.value
    own.type = made.type
    return own.value


cdef bint is_same(SessionState session, Record record, str key, int64_t version) noexcept:
    """Return True while the session's record has the attribute at this version, the same value (C4); 0: has it not."""
    cdef PyObject *now = session.record
    cdef Py_ssize_t place
    if now == <PyObject *> record:
        return True
    place = place_of(<Record> now, key)
    return (version_of(<Record> now, place) if place >= 0 else 0) == version


cdef object read_again(SessionState session, Record record, uint32_t place, Edit edit, object type_):
    """Return a value of which this session has read a mutable one before, or AGAIN; it sees its own changes to that."""
    cdef Edit view = edit
    while view is not None:
        if view.type is type_ or view.type == type_:
            return view.value if edit_of(session, edit.key) is edit else AGAIN
        view = view.next
    cdef Found found = nested_change(session, record, place, edit)
    forget_views(edit, found)
    if edit_of(session, edit.key) is not edit:
        return AGAIN
    if found is None:
        return read_stored(session, record, place, edit, type_)
    return convert(session, edit, found, type_)


cdef object read_set(SessionState session, Edit edit, object type_):
    """Return a value that was set, or AGAIN: the caller's own object, or as another type a conversion of that."""
    if type_ is ANY or <PyObject *> Py_TYPE(edit.value) == <PyObject *> type_:
        return edit.value
    cdef Found found = current_value(session, edit)
    cdef Edit view = edit, made = edit.next
    while made is not None:
        if made.type == type_:
            if made is found.view or made.source == found.encoded:
                return made.value if edit_of(session, edit.key) is edit else AGAIN
            if view.next is not made:           # the comparison has run other code
                return AGAIN
            view.next = made.next               # what it was made of has changed
            break
        view, made = made, made.next
    forget_views(edit, found)
    if edit_of(session, edit.key) is not edit:
        return AGAIN
    return convert(session, edit, found, type_)


cdef int forget_views(Edit edit, Found found) except -1:
    """Forget objects without changes that nobody refers to any more, once an attribute was read as many types.

    They are released at the end, which may run other code. `found` is what nested changes were found.
    """
    cdef list gone = []
    cdef Edit view = edit, made
    cdef int count = 0
    while view is not None:
        view = view.next
        count += 1
    if count <= VIEWS:
        return 0
    view = edit
    while view.next is not None:
        made = view.next
        if Py_REFCNT(<PyObject *> made.value) == 1 and not says(found, made):
            gone.append(made)
            view.next = made.next
        else:
            view = made
    return 0


cdef object convert(SessionState session, Edit edit, Found found, object type_):
    value = decode_opened(session, edit.key, found.encoded, type_)
    if is_plain(value) or (plan_of(type_).shareable and not has_codec(session)):
        return value
    cdef Edit view = new_edit(READ, edit.key, type_, value)
    view.before = comparable(session, edit.key, value)
    view.source = found.encoded
    return give_view(session, None, edit, found, view)
