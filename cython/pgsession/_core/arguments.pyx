# cython: freethreading_compatible=True
"""Rules for arguments that compiled and Python code share: texts, flags and whole numbers.

Every refusal names the argument and the rule; a wrong type is a TypeError, a bad value a ValueError.
"""


cdef str checked_text(str name, object value, Py_ssize_t least, Py_ssize_t most):
    """Return a str of `least` to `most` bytes in UTF-8 as plain text; subclasses may print as something else."""
    cdef str text
    cdef Py_ssize_t size
    if not isinstance(value, str):
        raise TypeError(f"{name}: a str is needed, not {type(value).__name__}")
    text = value if type(value) is str else str.__str__(value)
    if not text and least:
        raise ValueError(f"{name}: must not be empty")
    if "\0" in text:
        raise ValueError(f"{name}: must not contain NUL, which PostgreSQL cannot store")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name}: must not contain lone surrogates, which UTF-8 cannot carry") from None
    if size > most:
        raise ValueError(f"{name}: must be at most {most} bytes, not {size}")
    return text


cdef int refuse_flag(str name, object value) except -1:
    """Raise: what merely looks true or false is a mistake more often than not."""
    raise TypeError(f"{name}: True or False is needed, not {type(value).__name__}")


cdef int64_t checked_count(str name, object value, object least, object most) except? -1:
    """Return an int from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: an int is needed, not {type(value).__name__}")
    number = int.__pos__(value)         # the plain int, whatever a subclass says of itself
    if not least <= number <= most:
        raise ValueError(f"{name}: must be from {least} to {most}, not {shown(number)}")
    return number


cdef str shown(object value):
    """Return the text of a refused number; Python refuses to print an int of many digits."""
    try:
        text = str(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"a number of {len(text)} digits"


def check_text(str name, value, Py_ssize_t least=1, Py_ssize_t most=MAX_TEXT_BYTES):
    """Return a str of `least` to `most` bytes in UTF-8 as plain text.

    Raises:
        TypeError: It is not a str.
        ValueError: It is too short or too long, or has a NUL or a lone surrogate.
    """
    return checked_text(name, value, least, most)


def check_flag(str name, value):
    """Return a plain bool; raise TypeError for anything else."""
    return bool(checked_flag(name, value))


def check_count(str name, value, least, most=0x7FFFFFFFFFFFFFFF):
    """Return an int from `least` to `most`, which 64 bits hold.

    Raises:
        TypeError: It is not an int, or is a bool.
        ValueError: It is out of its range.
    """
    return checked_count(name, value, least, most)
