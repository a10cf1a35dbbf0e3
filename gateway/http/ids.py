"""Ids: new ones are TypeIDs, a prefix and a UUIDv7 in base32, so that they sort by time."""

import re

from typeid import TypeID

_ID = re.compile(r"[A-Za-z0-9_:-]{1,128}", re.ASCII)


def new_id(prefix: str) -> str:
    """`sub_01jb3h5qk8e9vbr1q4z8e9vbr1`, for the prefix `sub`."""
    return str(TypeID(prefix=prefix))


def is_id(text: str) -> bool:
    """Whether it can be the id of anything here. What cannot (NUL, for one) is not put to a database."""
    return _ID.fullmatch(text) is not None
