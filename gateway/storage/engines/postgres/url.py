"""What a PostgreSQL is named by. Apart from what it takes to use one, which is imported only where one is."""

POSTGRES = ("postgresql://", "postgres://")


def check_url(url: str) -> None:
    """Raises:
    ValueError: *url* names no server and database, in words that say what is wrong with it.
    """
    expected = "expected postgresql://user:password@host:port/database"
    # asyncpg reads it only when it connects, and fills what is missing from the environment.
    place, _, _ = url.partition("://")[2].partition("?")
    if not url.startswith(POSTGRES) or not place.partition("/")[2]:
        raise ValueError(expected)
