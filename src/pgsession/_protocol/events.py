"""The wire format of the notifications between nodes is written and read here.

A payload is ASCII, at most `MAX_PAYLOAD` bytes: `<origin> <xid>@<sent> <item> <item> ...`, where the origin is the node
id of the sender, or `PLAIN_SQL` for what triggers announce, and the xid that of the transaction which sends it, by
which an event proves reads (see `proofs_of_sync`). What a node sends has the database's time, in microseconds, as
`@<sent>`; who works by hand may commit much later. A *beacon* is an event without items. The items:

    u<32 hex>:<version>   the session is now at this version        Changed(key, version)
    d<32 hex>             the session is gone                       Deleted(key)
    U<hex>                every session of this user                UserChanged(user_id)
    G<hex>                every session of this group               GroupChanged(group_id)
    A                     every session                             Everything()
    l<hex>                a lock was released                       LockReleased(resource)
    L<hex>:<token>        a lock was ended by force                 LockEnded(resource, token)
    M                     events come on another channel from here  Moved()
    W                     somebody waits: acknowledge this event    Awaited()

where `<hex>` is the text in UTF-8. `parse` never raises: what it does not understand, from a newer version say, is
reported as malformed and stands for `Everything`, so that nothing stale can hide in it; but not where it is about a
lock, for nothing of those is cached.

The channel has a name that the database computes from a secret of its own, by a label: `EVENTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from pgsession._core.changes import changes_of

MAX_PAYLOAD = 7999
"""The longest payload that PostgreSQL takes, in bytes: 8,000 are refused."""

PLAIN_SQL = "0" * 16
"""The origin of what the triggers announce."""

EVENTS = "events"
"""The label of the channel on which the nodes that share these tables hear of changes."""

_LARGEST = 2**63 - 1
_LONGEST_BEGINNING = 16 + 1 + 20 + 1 + 19 + 1  # of a payload, before its first item


class Changed(Struct, frozen=True, gc=False):
    """A session was created or updated and is now at `version`."""

    key: bytes
    version: int


class Deleted(Struct, frozen=True, gc=False):
    """A session is gone."""

    key: bytes


class UserChanged(Struct, frozen=True, gc=False):
    """Something has changed in every session of a user: drop them all."""

    user_id: str


class GroupChanged(Struct, frozen=True, gc=False):
    """Something has changed in every session of a group: drop them all."""

    group_id: str


class Everything(Struct, frozen=True, gc=False):
    """Something has changed in every session: drop them all."""


class LockReleased(Struct, frozen=True, gc=False):
    """A lock became free: whoever waits for it may try."""

    resource: str


class LockEnded(Struct, frozen=True, gc=False):
    """The holder with this fencing token has lost the lock before its lease time was over."""

    resource: str
    token: int


class Moved(Struct, frozen=True, gc=False):
    """The secret was changed, and with it the names of the channels: nothing comes on this one any more."""


class Awaited(Struct, frozen=True, gc=False):
    """Somebody waits until every node has applied what was committed before: acknowledge the event's transaction."""


Item = (
    Changed | Deleted | UserChanged | GroupChanged | Everything | LockReleased | LockEnded | Moved | Awaited
)


class Event(Struct, frozen=True):
    """An event is one notification that was read.

    Attributes:
        origin: The node that sent it, or `PLAIN_SQL`.
        xid: The id of the transaction that sent it; 0 where it cannot be read.
        items: What it tells, in the order in which that happened.
        malformed: True where something in it could not be read.
        sent: When it was sent, in database time; 0 where it does not say.
    """

    origin: str
    xid: int
    items: tuple[Item, ...]
    malformed: bool = False
    sent: int = 0


def encode(item: Item) -> str:
    """Return the text of one item."""
    match item:
        case Changed(key, version):
            return f"u{key.hex()}:{version}"
        case Deleted(key):
            return f"d{key.hex()}"
        case UserChanged(user_id):
            return f"U{user_id.encode().hex()}"
        case GroupChanged(group_id):
            return f"G{group_id.encode().hex()}"
        case Everything():
            return "A"
        case LockReleased(resource):
            return f"l{resource.encode().hex()}"
        case LockEnded(resource, token):
            return f"L{resource.encode().hex()}:{token}"
        case Moved():
            return "M"
        case Awaited():
            return "W"


def batches(items: Iterable[Item]) -> Iterator[str]:
    """Yield the items' texts, in as few parts as their order allows: with its beginning none exceeds `MAX_PAYLOAD`."""
    part = ""
    for text in map(encode, items):
        if len(part) + 1 + len(text) > MAX_PAYLOAD - _LONGEST_BEGINNING:
            yield part
            part = ""
        part += " " + text if part else text
    if part:
        yield part


def payload(origin: str, xid: int, items: str = "") -> str:
    """Return what the database sends where it is given these items, in text."""
    return f"{origin} {xid} {items}".rstrip(" ")


def parse(payload: str) -> Event:
    """Read a payload; what cannot be read makes the event a malformed one, and nothing is raised."""
    origin, _, rest = payload.partition(" ")
    xid, has_items, items = rest.partition(" ")
    try:
        if len(origin) != 16 or not _is_hex(origin):
            raise ValueError("not a node")
        number, at, time = xid.partition("@")
        sender, sent = _number(" ", number), _number(at, time) if at else 0
    except ValueError:
        return Event(PLAIN_SQL, 0, (Everything(),), malformed=True)
    if not has_items:
        return Event(origin, sender, ())
    changes = changes_of(items, Changed)
    if changes is not None:
        return Event(origin, sender, tuple(changes), sent=sent)
    texts = items.split(" ")
    try:
        return Event(origin, sender, tuple(map(_item, texts)), sent=sent)
    except ValueError:  # UnicodeDecodeError included
        return Event(PLAIN_SQL, sender, tuple(_readable(texts)), malformed=True)


def _readable(texts: Iterable[str]) -> Iterator[Item]:
    for text in texts:
        try:
            yield _item(text)
        except ValueError:
            if text[:1].lower() != "l":
                yield Everything()


def _is_hex(text: str) -> bool:
    try:
        _hex(text)
    except ValueError:
        return False
    return True


def _hex(text: str) -> bytes:
    # bytes.fromhex skips white space of any kind, which encode() never writes.
    if not text.isascii() or len(text) != 2 * len(data := bytes.fromhex(text)):
        raise ValueError("not hexadecimal")
    return data


def _key(text: str) -> bytes:
    # Sixteen bytes from 32 characters leave no room for the white space that fromhex skips.
    key = bytes.fromhex(text)
    if len(key) != 16 or len(text) != 32:
        raise ValueError("not a session id")
    return key


def _number(colon: str, text: str) -> int:
    # int() would also take signs, underscores, white space, other alphabets' digits, and any number of them.
    if not (colon and text.isdecimal() and text.isascii() and len(text) <= 19):
        raise ValueError("not a version or token")
    number = int(text)
    if number > _LARGEST:
        raise ValueError("larger than any version or token")
    return number


def _item(text: str) -> Item:
    kind, rest = text[:1], text[1:]
    if kind == "u":
        key, colon, version = rest.partition(":")
        return Changed(_key(key), _number(colon, version))
    if kind == "d":
        return Deleted(_key(rest))
    if kind == "U":
        return UserChanged(_hex(rest).decode())
    if kind == "G":
        return GroupChanged(_hex(rest).decode())
    if kind == "l":
        return LockReleased(_hex(rest).decode())
    if kind == "L":
        resource, colon, token = rest.partition(":")
        return LockEnded(_hex(resource).decode(), _number(colon, token))
    if text == "A":
        return Everything()
    if text == "M":
        return Moved()
    if text == "W":
        return Awaited()
    raise ValueError("unknown item")
