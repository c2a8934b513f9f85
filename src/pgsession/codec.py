"""Codec is what attribute values go through on their way to the database and back."""

from __future__ import annotations

from uuid import UUID

__all__ = ["Codec"]


class Codec:
    """Changes attribute values on their way to the database and back, in two layers; a subclass has one or both.

    `to_plain` and `from_plain` are about values: they let JSON hold what it could not, or let a value that is read be
    what was set. `seal` and `open` are about bytes: they encrypt. A value that is set goes through `to_plain`, becomes
    JSON, and that goes through `seal`; a value that is read takes the same way back.

    A subclass is given to a manager as `Config.codec`. All nodes on the same tables need codecs that understand each
    other. The methods are called by whichever thread reads or writes, several at a time, and under asyncio in the event
    loop, so they do not wait for anything. An error that one raises becomes the cause of an `AttributeCodecError`.
    """

    def to_plain(self, value: object) -> object:
        """Return what is encoded in place of a value; here, the value itself.

        Args:
            value: What was set as an attribute, or a value that was read and may have been changed since.

        Returns:
            What msgspec encodes as JSON. Alike values have to give the same JSON each time: so changes are found.
        """
        return value

    def from_plain(self, value: object) -> object:
        """Return what a caller reads in place of a value; here, the value itself.

        Not asked where a caller reads with `type=`: that type is decoded from the JSON.

        Args:
            value: What JSON has made of what `to_plain` returned: text, number, bool, None, list or dict.
        """
        return value

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        """Return what is stored in place of the JSON of a value.

        Session and key are to be authenticated along with the data, so that whoever can write to the tables cannot put
        the value of one in the place of another. A subclass that has `seal` has `open` too.

        Args:
            session_id: The id of the session.
            key: The attribute's key.
            data: The JSON of the value.

        Returns:
            Any bytes. They are stored as a JSON string of their Base64 form, the length of which counts.
        """
        return data

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        """Return the JSON of a value that `seal` has made these bytes of.

        Args:
            session_id: The id of the session.
            key: The attribute's key.
            data: The bytes that were stored.

        Raises:
            Exception: These bytes were not sealed for this session and key, or with a key that is not known.
        """
        return data
