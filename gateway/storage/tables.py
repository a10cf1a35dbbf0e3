"""The tables. Migrations create them; a test holds the two against each other.

log ─┬─ events ──── one row an event, by cursor
     └─ cursors ─── how far each durable reader (the fan-out) has come
keys · vault ────── who calls · small secrets of the gateway's own
event_types ─────── what is known of the data of each
subscriptions ─┬─── what their owners set
               ├─ lanes ──────── what a lane remembers of its receiver
               ├─ lane_owners ── which process sends for it, where there are several
               ├─ deliveries ─┬─ one row an event and subscription
               │              └─ attempts
               ├─ delivery_counts ── how many deliveries there are, by status
               ├─ replays ────── replays and bulk redeliveries
               ├─ tombstones ─── of deleted ones: who may still see their deliveries
               └─ rollups ────── what deliveries came to, by minute, hour and day
tallies ─────────── what is yet to be added to them
nodes ───────────── processes that send, and until when
moves ───────────── that all of this is on its way to another database, or comes from one

An index that is partial here is so in PostgreSQL, too: the migrations say it. To say it here would import its dialect.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    event,
    literal_column,
    text,
)

from gateway.storage.columns import Buckets, Json, Moment, Names, Span
from gateway.storage.dialects import COUNT_DELIVERIES

metadata = MetaData()

log = Table(
    "log",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),  # always 1: the table has one row
    Column("epoch", String(16), nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("earliest", BigInteger, nullable=False),
    Column("last_accepted_at", Moment, nullable=False),
    Column("dropped_until", Moment),
)

# The cursor is the key: contiguous, in commit order, and acceptance times rise with it. So a time is found by
# bisection, a page is a range of cursors, and only the id needs an index of its own.
events = Table(
    "events",
    metadata,
    Column("cursor", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", String(128), nullable=False),
    Column("type", String(128), nullable=False),
    Column("library_id", String(128), nullable=False),
    Column("timestamp", Moment, nullable=False),
    Column("accepted_at", Moment, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("traceparent", String(128)),
    Column("audience", Names),
    Index("events_id", "id", unique=True),
)

cursors = Table(
    "cursors",
    metadata,
    Column("reader", String(32), primary_key=True),
    Column("cursor", BigInteger, nullable=False),
    Column("ahead", BigInteger, nullable=False, server_default=text("0")),  # up to where but for those that are behind
    Column("behind", Json),  # subscription: cursor after which it lacks deliveries
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", Names, nullable=False),
    Column("libraries", Names),
    Column("created_at", Moment, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Index("keys_hash", "hash", unique=True),
)

vault = Table(
    "vault",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),  # sealed
)

event_types = Table(
    "event_types",
    metadata,
    Column("type", String(128), primary_key=True),
    Column("description", Text, nullable=False),
    Column("schema", Json),
    Column("validation", String(16), nullable=False),
    Column("created_cursor", BigInteger, nullable=False),  # of the notice of its first change
    Column("cursor", BigInteger, nullable=False),  # and of its last
    Column("updated_at", Moment, nullable=False),
    Index("event_types_created", "created_cursor"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("library_ids", Names),
    Column("types", Names),
    Column("filter", Text),
    Column("libraries", Names),  # the copy of its key's confinement
    Column("description", Text, nullable=False),
    Column("headers", LargeBinary, nullable=False),  # JSON, sealed
    Column("signature", String(8), nullable=False),
    Column("ordering", String(16), nullable=False),
    Column("payload", String(16), nullable=False),
    Column("max_in_flight", Integer, nullable=False),
    Column("max_per_second", Float),
    Column("timeout_seconds", Float, nullable=False),
    Column("retry_schedule", Json),
    Column("metadata", Json, nullable=False),
    Column("secrets", LargeBinary, nullable=False),  # likewise
    Column("status", String(16), nullable=False),
    Column("disabled_reason", Text),
    Column("created_at", Moment, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_cursor", BigInteger, nullable=False),
    Column("idle", Span, nullable=False),
    Column("idle_since", Moment),
    # Interests that were in force before: [{until, library_ids, types, filter}], until the fan-out has passed them.
    Column("former", Json, nullable=False),
    # The place of the notice since which it has its present filter; NULL where nobody wrote it down.
    Column("filter_since", BigInteger),
    Index("subscriptions_created_by", "created_by"),
)

# A deleted subscription's deliveries stay for as long as they would have. Whoever saw it may still see them.
tombstones = Table(
    "tombstones",
    metadata,
    Column("subscription_id", String(64), primary_key=True),
    Column("libraries", Names),
    Column("cursor", BigInteger, nullable=False),  # of its `gateway.subscription.deleted`
    Column("owing", Boolean, nullable=False),  # whether there may be deliveries left to cancel
    Index("tombstones_cursor", "cursor"),
)
OWING = tombstones.c.owing.is_(True)
Index("tombstones_owing", tombstones.c.subscription_id, sqlite_where=OWING)

lanes = Table(
    "lanes",
    metadata,
    Column("subscription_id", String(64), primary_key=True),
    Column("failing_since", Moment),
    Column("failing_told", Boolean, nullable=False),
    Column("consecutive_failures", Integer, nullable=False),
    Column("unreachable", Integer, nullable=False),
    Column("circuit_trips", Integer, nullable=False),
    Column("circuit_open_until", Moment),
    Column("held_until", Moment),
)
OPEN = lanes.c.circuit_open_until.is_not(None)
Index("lanes_open", lanes.c.subscription_id, sqlite_where=OPEN)

# Both are empty in SQLite, which one process has to itself. Times in them are the database's own.
nodes = Table(
    "nodes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("expires_at", BigInteger, nullable=False),  # its lease, in microseconds since 1970
    Column("leaving", Boolean, nullable=False),
)

lane_owners = Table(
    "lane_owners",
    metadata,
    Column("subscription_id", String(64), primary_key=True),
    Column("node", String(64)),  # NULL: nobody
    Column("term", BigInteger, nullable=False),
    Column("released_at", BigInteger),  # when it was given back the last time
)
OWNED = lane_owners.c.node.is_not(None)
Index("lane_owners_node", lane_owners.c.node, sqlite_where=OWNED)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("subscription_id", String(64), nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("event_id", String(128), nullable=False),
    Column("library_id", String(128), nullable=False),
    Column("type", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String(32)),
    Column("created_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("settled_at", Moment),
    Column("attempt_count", Integer, nullable=False),
    Column("schedule_start", Integer, nullable=False),
    Column("first_attempt_at", Moment),
    Column("idle_before", Span, nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("replay_id", String(64)),
    Column("rank", SmallInteger, nullable=False, server_default=text("0")),  # `LIVE` goes before `REPLAYED`
)
LIVE, REPLAYED = 0, 1

# Written out, never as a parameter: an engine uses a partial index only where it reads the index's own condition.
PENDING = deliveries.c.status == literal_column("'pending'")
DEAD = deliveries.c.status == literal_column("'dead'")
FORCED = PENDING & deliveries.c.forced


def _of_deliveries(name: str, *columns: str, where: ColumnElement[bool] | None = None) -> None:
    Index(name, *(deliveries.c[column] for column in columns), sqlite_where=where)


# What a lane reads: pending ones by due time, the forced ones, and each library's next; of live work, or replayed ones.
_of_deliveries("deliveries_due", "subscription_id", "rank", "due_at", "cursor", "id", where=PENDING)
_of_deliveries("deliveries_forced", "subscription_id", "rank", "due_at", "cursor", "id", where=FORCED)
_of_deliveries("deliveries_in_order", "subscription_id", "rank", "library_id", "cursor", "id", where=PENDING)
# What people read, newest first.
_of_deliveries("deliveries_subscription", "subscription_id", "id")
_of_deliveries("deliveries_event", "event_id", "id")
_of_deliveries("deliveries_dead", "id", where=DEAD)
_of_deliveries("deliveries_dead_of", "subscription_id", "status", "id", where=DEAD)  # status: else it looks no better
_OF_REPLAY = deliveries.c.replay_id.is_not(None)
_of_deliveries("deliveries_replay", "replay_id", "status", "attempt_count", "id", where=_OF_REPLAY)
# What retention takes away.
_of_deliveries("deliveries_leaving", "cursor", where=PENDING)
_of_deliveries("deliveries_settled", "settled_at", where=deliveries.c.settled_at.is_not(None))

# On PostgreSQL in partitions by the day of `started_at`, which is of the key there.
attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("started_at", Moment, nullable=False),
    Column("duration", Span, nullable=False),
    Column("connect", Span),
    Column("first_byte", Span),
    Column("status_code", Integer),
    Column("error", Text),
    Column("failure", String(16)),
    Column("request_headers", Json, nullable=False),
    Column("response_headers", Json, nullable=False),
    Column("response_body", LargeBinary, nullable=False),
    Index("attempts_started", "started_at"),
)

replays = Table(
    "replays",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("subscription_id", String(64)),
    Column("libraries", Names),
    Column("created_at", Moment, nullable=False),
    Column("matched", BigInteger, nullable=False),
    # Of replays alone: which events (the subscription's filter as it was, and what was asked for), and how far it is.
    Column("own_filter", Json),
    Column("library_ids", Names),
    Column("types", Names),
    Column("undelivered", Boolean),
    Column("max_per_second", Float),
    Column("cursor", BigInteger),  # its deliveries are made up to here
    Column("last", BigInteger),  # the last place of its stretch
    Column("created", BigInteger, nullable=False, server_default=text("0")),
    Column("stopped_at", Moment),
    Column("finished_at", Moment),  # nothing more of it is owed, stopped or not
    Index("replays_created", "created_at"),
)
UNFINISHED = replays.c.finished_at.is_(None)
Index(
    "replays_unfinished",
    replays.c.subscription_id,
    replays.c.id,
    sqlite_where=UNFINISHED,
)

# Kept by triggers, so that whatever changes a delivery's status counts, and nothing has to think of it.
delivery_counts = Table(
    "delivery_counts",
    metadata,
    Column("subscription_id", String(64), primary_key=True),
    Column("pending", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("dead", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
)
for _dialect, _triggers in COUNT_DELIVERIES.items():
    for _trigger in _triggers:
        event.listen(metadata, "after_create", DDL(_trigger).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call] # SQLAlchemy's own

# One row a batch that was settled, written with it, until it is added to the rollups: settling reads nothing of them.
tallies = Table(
    "tallies",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("figures", LargeBinary, nullable=False),
)

rollups = Table(
    "rollups",
    metadata,
    Column("subscription_id", String(64), primary_key=True),  # empty: all together
    Column("interval", String(8), primary_key=True),
    Column("dimension", String(16), primary_key=True),  # all, type, library
    Column("start", Moment, primary_key=True),
    Column("name", String(128), primary_key=True),  # empty: everything, or of those beyond as many as have names
    Column("attempts", BigInteger, nullable=False),
    Column("failed_attempts", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("dead", BigInteger, nullable=False),
    Column("durations", Buckets, nullable=False),
    Column("latencies", Buckets, nullable=False),
    Index("rollups_newest", "interval", "dimension", "start", "name", "subscription_id"),
    sqlite_with_rowid=False,
)

# At most one row. Of all tables the one that stays behind when a database is copied.
moves = Table(
    "moves",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("token", String(32), nullable=False),  # the same at both ends, made anew with each beginning
    Column("is_source", Boolean, nullable=False),
    Column("other", Text, nullable=False),  # where the other end is, without its password
    Column("is_whole", Boolean, nullable=False),  # everything has gone, or is there
    Column("progress", Json, nullable=False),
)
