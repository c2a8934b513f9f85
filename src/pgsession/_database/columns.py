"""A batch of writes is sent as columns: what are rows on our side are arrays on the server's.

Each class here is the declaration of one kind of write: its fields are the parameters of the server's write function,
in this order, and `SQL_TYPES` has their types. Each array has one element for each operation, or is null where no
operation of the batch needs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from pgsession._protocol.operations import Flag

from .arrays import NONE, array, integer_array, optional_integer_array, optional_text_array, text_array

_NO_INCARNATION = "0" * 32
_CHECK_ATTRIBUTES = int(Flag.CHECK_ATTRIBUTES)


class Updates(NamedTuple):
    """Holds the updates of a batch, as columns.

    A row is `(id, base_version, owner_since, flags, expires | None, group_id | None, [(key, value, expires | None,
    base_attribute_version), ...] to set, [(key, base_attribute_version), ...] to remove, incarnation | None,
    rotation | None, inactivity | None)`, and a rotation `(generation, base_generation, grace, user_id | None)`.
    """

    ids: str | None = None
    bases: str | None = None
    """The version of the session that each is based on."""
    owners_since: str | None = None
    """The version at which the session became its user's, as far as each knows: an update is for that owner's alone."""
    incarnations: str | None = None
    """The incarnation that this version is of; one element where it is the same for all."""
    flags: str | None = None
    """See `pgsession._protocol.operations.Flag`."""
    expiries: str | None = None
    groups: str | None = None
    inactivities: str | None = None
    """Microseconds, where the flags say that it changes; `NONE` for no idle timeout."""
    set_ends: str | None = None
    """The positions at which the attributes of each end in the next four, in which all follow each other."""
    set_keys: str | None = None
    set_values: str | None = None
    """JSON text."""
    set_expiries: str | None = None
    set_bases: str | None = None
    """The versions of the attributes, where an update checks them."""
    drop_of: str | None = None
    """The numbers of the updates that remove an attribute, from 1, one for each attribute."""
    drop_keys: str | None = None
    drop_bases: str | None = None
    generations: str | None = None
    """The new ones, where something is rotated; `NONE` for the others of the batch."""
    base_generations: str | None = None
    """Those that each is based on: where somebody else was faster, nothing is rotated."""
    graces: str | None = None
    """Microseconds for which the generation of before is still good."""
    users: str | None = None
    """Whom the session is given to, where the flags say that it is; "" for nobody."""


class Creates(NamedTuple):
    """Holds the new sessions of a batch, as columns.

    A row is `(id, generation, user_id | None, group_id | None, expires, inactivity | None, [(key, value, expires |
    None), ...], if_exists | None)`.
    """

    new_ids: str | None = None
    new_generations: str | None = None
    new_user_ids: str | None = None
    """"" for nobody."""
    new_group_ids: str | None = None
    new_expiries: str | None = None
    new_inactivities: str | None = None
    new_ends: str | None = None
    """The positions at which the attributes of each end in the next three, in which all follow each other."""
    new_keys: str | None = None
    new_values: str | None = None
    new_attribute_expiries: str | None = None
    new_if_exists: str | None = None
    """Where ids were chosen, what is done where there is such a session: "error", "return" or "replace"."""


class Accesses(NamedTuple):
    """Holds, as columns, accesses that this node knows of to sessions of the users who get one; a row is `(id, us)`."""

    accessed_ids: str | None = None
    accessed_at: str | None = None


class Deletes(NamedTuple):
    """Holds the deletes of a batch, as a column; a row is an id."""

    deletes: str | None = None


SQL_TYPES: Final = {
    "ids": "uuid[]",
    "bases": "bigint[]",
    "owners_since": "bigint[]",
    "incarnations": "uuid[]",
    "flags": "integer[]",
    "expiries": "bigint[]",
    "groups": "text[]",
    "inactivities": "bigint[]",
    "set_ends": "integer[]",
    "set_keys": "text[]",
    "set_values": "text[]",
    "set_expiries": "bigint[]",
    "set_bases": "bigint[]",
    "drop_of": "integer[]",
    "drop_keys": "text[]",
    "drop_bases": "bigint[]",
    "generations": "bigint[]",
    "base_generations": "bigint[]",
    "graces": "bigint[]",
    "users": "text[]",
    "new_ids": "uuid[]",
    "new_generations": "bigint[]",
    "new_user_ids": "text[]",
    "new_group_ids": "text[]",
    "new_expiries": "bigint[]",
    "new_inactivities": "bigint[]",
    "new_ends": "integer[]",
    "new_keys": "text[]",
    "new_values": "text[]",
    "new_attribute_expiries": "bigint[]",
    "new_if_exists": "text[]",
    "accessed_ids": "uuid[]",
    "accessed_at": "bigint[]",
    "deletes": "uuid[]",
}
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "update": Updates._fields,
    "create": Creates._fields,
    "access": Accesses._fields,
    "delete": Deletes._fields,
}


def parameters(kind: str) -> str:
    """Return the parameters of a kind of write, as a function's declaration has them."""
    return ", ".join(f"{name} {SQL_TYPES[name]}" for name in KINDS[kind])


def arguments(kind: str) -> str:
    """Return the same parameters, as a call of another function passes them on."""
    return ", ".join(KINDS[kind])


def updates_of(rows: Sequence[Sequence[Any]]) -> Updates:
    """Return the columns of update rows."""
    if not rows:
        return Updates()
    ids, bases, owners, flags, expiries, groups, sets, drops, incarnations, rotations, inactivities = zip(
        *rows, strict=True
    )
    checked = any(flag & _CHECK_ATTRIBUTES for flag in flags)
    keys, values, ends_at, set_bases = _transposed([one for some in sets for one in some], 4)
    drop_of = [number for number, some in enumerate(drops, 1) for _ in some]
    drop_keys, drop_bases = _transposed([one for some in drops for one in some], 2)
    return Updates(
        ids=array(ids),
        bases=integer_array(bases),
        owners_since=integer_array(owners),
        incarnations=_incarnations(incarnations),
        flags=integer_array(flags),
        expiries=optional_integer_array(expiries),
        groups=optional_text_array(groups),
        inactivities=optional_integer_array(inactivities),
        set_ends=integer_array(_ends(sets)),
        set_keys=text_array(keys),
        set_values=text_array(values),
        set_expiries=optional_integer_array(ends_at),
        set_bases=integer_array(set_bases) if checked else None,
        drop_of=integer_array(drop_of) if drop_of else None,
        drop_keys=text_array(drop_keys) if drop_of else None,
        drop_bases=integer_array(drop_bases) if drop_of else None,
        **(_rotations_of(rotations) if any(rotations) else {}),
    )


def _rotations_of(rotations: Sequence[tuple[int, int, int, str | None] | None]) -> dict[str, str | None]:
    generations, bases, graces, users = zip(
        *((NONE, 0, 0, None) if one is None else one for one in rotations), strict=True
    )
    return {
        "generations": integer_array(generations),
        "base_generations": integer_array(bases),
        "graces": integer_array(graces),
        "users": text_array(user or "" for user in users) if any(users) else None,
    }


def creates_of(rows: Sequence[Sequence[Any]]) -> Creates:
    """Return the columns of create rows."""
    if not rows:
        return Creates()
    ids, generations, users, groups, expiries, inactivities, attributes, chosen = zip(*rows, strict=True)
    keys, values, ends_at = _transposed([one for some in attributes for one in some], 3)
    return Creates(
        new_ids=array(ids),
        new_generations=integer_array(generations),
        new_user_ids=text_array(user or "" for user in users),
        new_group_ids=optional_text_array(groups),
        new_expiries=integer_array(expiries),
        new_inactivities=optional_integer_array(inactivities),
        new_ends=integer_array(_ends(attributes)),
        new_keys=text_array(keys),
        new_values=text_array(values),
        new_attribute_expiries=optional_integer_array(ends_at),
        new_if_exists=array(one or "error" for one in chosen) if any(chosen) else None,
    )


def accesses_of(accesses: Sequence[tuple[str, int]]) -> Accesses:
    """Return the columns of accesses."""
    if not accesses:
        return Accesses()
    return Accesses(array([key for key, _ in accesses]), integer_array([at for _, at in accesses]))


def deletes_of(ids: Sequence[str]) -> Deletes:
    """Return the column of the sessions to delete."""
    return Deletes(array(ids) if ids else None)


def _incarnations(bases: Sequence[str | None]) -> str:
    """Return the array of the incarnations that the updates are based on; an unknown one is none that there is."""
    known = [base or _NO_INCARNATION for base in bases]
    return array(known if len(set(known)) > 1 else known[:1])


def _ends(lists: Iterable[Sequence[Any]]) -> list[int]:
    """Return the positions at which the lists end, when they follow each other."""
    return list(itertools.accumulate(map(len, lists)))


def _transposed(rows: list[Sequence[Any]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width
