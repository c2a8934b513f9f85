"""A session is seen as a TypedDict or a Struct of its attributes here, as `Session.as_type` gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Protocol, get_args, get_origin, get_type_hints

import msgspec

_MISSING: Any = object()
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")


class Session(Protocol):
    """Says what is needed of a session; this module is below it."""

    def get(self, key: str, default: Any = None, *, type: Any = ...) -> Any:
        """Return the value of `key`, decoded as `type`, or `default`."""

    def __setitem__(self, key: str, value: Any) -> None: ...
    def __delitem__(self, key: str) -> None: ...
    def __contains__(self, key: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...


class TypedAttributes(MutableMapping[str, Any]):
    """Shows a session as a TypedDict: each value is read as its field's type, and what is set is set in the session."""

    __slots__ = ("_session", "_types")

    def __init__(self, session: Session, kind: type) -> None:
        self._session = session
        self._types = hints(kind)

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, decoded as its field's type, or `default` where there is none."""
        return self._session.get(key, default, type=self._types.get(key, Any))

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[key] = value

    def __delitem__(self, key: str) -> None:
        del self._session[key]

    def __contains__(self, key: object) -> bool:
        return key in self._session

    def __iter__(self) -> Iterator[str]:
        return iter(self._session)

    def __len__(self) -> int:
        return len(self._session)

    def __repr__(self) -> str:
        return f"<attributes of {self._session!r}>"


@lru_cache(maxsize=256)
def hints(kind: type) -> Mapping[str, Any]:
    """Return the types of the fields of a TypedDict, with the bounds that are annotated."""
    return {key: _without_qualifiers(hint) for key, hint in get_type_hints(kind, include_extras=True).items()}


def _without_qualifiers(hint: Any) -> Any:
    """Return a type without `Required`, `NotRequired` or `ReadOnly`, which are about the key."""
    while getattr(get_origin(hint), "__name__", getattr(get_origin(hint), "_name", None)) in _QUALIFIERS:
        (hint,) = get_args(hint)
    return hint


@lru_cache(maxsize=256)
def fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return what is known of the fields of a Struct."""
    return msgspec.structs.fields(kind)


def is_typed_dict(kind: object) -> bool:
    """Return True for a TypedDict, of `typing` or of `typing_extensions`."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def is_struct(kind: object) -> bool:
    """Return True for a subclass of `msgspec.Struct`."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def struct_of(session: Session, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Return a Struct of what the session has; fields without an attribute have their defaults."""
    values = {}
    for field in fields(kind):
        value = session.get(field.encode_name, _MISSING, type=field.type)
        if value is not _MISSING:
            values[field.name] = value
        elif field.required:
            raise KeyError(field.encode_name)
    return kind(**values)
