"""New ids: TypeIDs, a prefix and a UUIDv7 in base32, so that they sort by time."""

from typeid import TypeID


def new_id(prefix: str) -> str:
    """`sub_01jb3h5qk8e9vbr1q4z8e9vbr1`, for the prefix `sub`."""
    return str(TypeID(prefix=prefix))
