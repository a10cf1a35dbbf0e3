"""The migrations and the tables they are meant to make."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, LargeBinary, MetaData, Table, create_engine, insert, inspect, select

from gateway.storage import migrations
from gateway.storage.engines.postgres.server import as_alchemy
from gateway.storage.tables import cursors, metadata


def _schema(connection: Connection) -> dict[str, str]:
    """Every table and index by name, as the statement that makes it, less its layout."""
    rows = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
    )
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_migrated_tables_are_those_of_the_metadata(tmp_path: Path) -> None:
    migrated = create_engine(f"sqlite:///{tmp_path}/migrated.db")
    declared = create_engine(f"sqlite:///{tmp_path}/declared.db")
    with migrated.begin() as connection:
        migrations.upgrade(connection)
    with declared.begin() as connection:
        metadata.create_all(connection)
    with migrated.connect() as left, declared.connect() as right:
        assert _schema(left) == _schema(right)
    migrated.dispose()
    declared.dispose()


def test_the_newest_version_is_the_one_that_alembic_would_upgrade_to() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [migrations.NEWEST]


def test_what_was_there_before_replays_is_live_work_and_redeliveries_that_made_all_of_theirs(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/gateway.db")
    with engine.begin() as connection:
        migrations.upgrade(connection, to="0001")
        connection.exec_driver_sql("INSERT INTO replays (id, kind, created_at, matched) VALUES ('r', '', 0, 7)")
        connection.exec_driver_sql(
            "INSERT INTO deliveries (id, subscription_id, cursor, event_id, library_id, type, status, created_at,"
            " due_at, attempt_count, schedule_start, idle_before, forced)"
            " VALUES ('d', 's', 1, 'e', 'l', 't', 'pending', 0, 0, 0, 0, 0, 0)"
        )
    with engine.begin() as connection:
        migrations.upgrade(connection)
        assert connection.exec_driver_sql("SELECT created, last FROM replays").one() == (7, None)
        assert connection.exec_driver_sql("SELECT rank FROM deliveries").scalar_one() == 0
    engine.dispose()


def test_who_had_no_delivery_of_an_event_yet_is_behind_from_there_on(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/gateway.db")
    with engine.begin() as connection:
        migrations.upgrade(connection, to="0006")
        kept = Table("subscriptions", MetaData(), autoload_with=connection)
        values = {
            column.name: b"{}" if isinstance(column.type, LargeBinary) else 0
            for column in kept.c
            if not (column.nullable or column.server_default)
        }
        connection.execute(insert(kept), [{**values, "id": id_} for id_ in ("one", "two", "three")])
        connection.exec_driver_sql("""UPDATE cursors SET cursor = 7, made = '["two"]'""")
    with engine.begin() as connection:
        migrations.upgrade(connection)
        row = connection.execute(select(cursors)).one()
    assert (row.cursor, row.ahead, row.behind) == (7, 8, {"one": 7, "three": 7})
    engine.dispose()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/gateway.db")
    with engine.begin() as connection:
        migrations.upgrade(connection)
        epoch = connection.exec_driver_sql("SELECT epoch FROM log").scalar_one()
    with engine.begin() as connection:
        migrations.upgrade(connection)
        assert connection.exec_driver_sql("SELECT epoch FROM log").scalar_one() == epoch
        assert "deliveries" in inspect(connection).get_table_names()
    engine.dispose()


async def test_migrated_tables_are_those_of_the_metadata_in_postgres_too(postgres_url: str) -> None:
    def is_ours(name: str | None, kind: str, _: object) -> bool:
        return kind != "table" or not str(name).startswith("attempts_")  # partitions

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection, opts={"include_name": is_ours}), metadata)

    async with as_alchemy(postgres_url).connect() as connection:
        assert await connection.run_sync(differences) == []
