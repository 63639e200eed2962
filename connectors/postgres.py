"""PostgreSQL: tables that mirror memberships, profiles and events, for joins with everything else a shop has there.

    headwater_members    one row per profile and segment: is_member, since, sequence, identifiers, traits
    headwater_profiles   one row per profile: identifiers, traits, computed, consents, segments, accounts
    headwater_events     one row per event passed on

A repetition changes nothing: a membership is written only with a higher sequence, or by a consent with the same one;
an event once by its delivery_id; profile changes come again only together with all that followed them. A row that is no
longer a member keeps its sequence and nothing personal. Of a person who is erased no row stays in any of them, and
their identifiers in no row of somebody else, whose membership may have begun while they were taken for one. Texts lose
the character NUL, which PostgreSQL cannot hold.

Two indexes of headwater_members find who is erased. Tables of an earlier release get them at the first connection,
which on millions of rows takes minutes in which nothing is written there; make them beforehand, if that is too long:

    CREATE INDEX CONCURRENTLY headwater_members_of_profile ON headwater_members (profile_id);
    CREATE INDEX CONCURRENTLY headwater_members_known_by ON headwater_members USING gin (identifiers jsonb_path_ops);

A server that does not answer any more, and does not end the connection either, holds nobody for longer than three times
`timeout_seconds`: its own time limits are kept by the server, who may be what hangs. It ends a transaction that nothing
is heard of for as long: what a connection that was lost had locked nobody else could write.

After every failure the connection string is read and connected to anew: a name may lead to another server since a
failover, and the password may be another one. With several hosts in it, say `target_session_attrs=read-write`. Where
the server has no room for a second connection, one does the work. PgBouncer needs `ignore_startup_parameters =
options`; the server keeps no time limits then.

Needs the extra `headwater[postgres]`.
"""

import contextlib
import logging
import os
import queue
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
from pydantic import Field, field_validator

from connectors.base import Connector, Options, Outcome, SecretReference, delivered, rejected, retry
from pipeline.records import Delivery

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_SECTIONS = ("traits", "computed", "consents", "segments")
_LONGEST_CALL = 3  # times timeout_seconds
_LONGEST_INDEXING_S = 1_800
_encode = msgspec.json.encode

_TABLES = """
CREATE TABLE IF NOT EXISTS {prefix}members (
    segment text NOT NULL, profile_id text NOT NULL, entity text, is_member boolean NOT NULL,
    since timestamptz NOT NULL, version integer, sequence bigint NOT NULL, identifiers jsonb, traits jsonb,
    delivery_id text NOT NULL,
    PRIMARY KEY (segment, profile_id));
CREATE TABLE IF NOT EXISTS {prefix}profiles (
    profile_id text PRIMARY KEY, entity text, identifiers jsonb NOT NULL, traits jsonb NOT NULL,
    computed jsonb NOT NULL, consents jsonb NOT NULL, segments jsonb NOT NULL, accounts jsonb NOT NULL,
    changed timestamptz NOT NULL, delivery_id text NOT NULL);
CREATE TABLE IF NOT EXISTS {prefix}events (
    delivery_id text PRIMARY KEY, profile_id text NOT NULL, event text, at timestamptz NOT NULL, message_id text,
    properties jsonb, traits jsonb);
CREATE INDEX IF NOT EXISTS {bare}events_of_profile ON {prefix}events (profile_id);
CREATE INDEX IF NOT EXISTS {bare}events_alerts ON {prefix}events (at) WHERE properties ? 'alert_id';
"""
_MADE_BY_TABLES = ("members", "profiles", "events", "events_of_profile", "events_alerts")
_INDEXES = """
CREATE INDEX IF NOT EXISTS {bare}members_of_profile ON {prefix}members (profile_id);
CREATE INDEX IF NOT EXISTS {bare}members_known_by ON {prefix}members USING gin (identifiers jsonb_path_ops);
"""
_MADE_BY_INDEXES = ("members_of_profile", "members_known_by")
_HAS = "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest(%s::text[]) AS name"
_MEMBER = """
INSERT INTO {prefix}members
    (segment, profile_id, entity, is_member, since, version, sequence, identifiers, traits, delivery_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (segment, profile_id) DO UPDATE SET entity = EXCLUDED.entity, is_member = EXCLUDED.is_member,
    since = EXCLUDED.since, version = EXCLUDED.version, sequence = EXCLUDED.sequence,
    identifiers = EXCLUDED.identifiers, traits = EXCLUDED.traits, delivery_id = EXCLUDED.delivery_id
WHERE {prefix}members.sequence < EXCLUDED.sequence OR ({prefix}members.sequence = EXCLUDED.sequence AND %s)
"""
_PROFILE = """
INSERT INTO {prefix}profiles AS now
    (profile_id, entity, identifiers, changed, delivery_id, traits, computed, consents, segments, accounts)
VALUES (%(id)s, %(entity)s, %(identifiers)s, %(changed)s, %(delivery_id)s,
    %(traits)s::jsonb, %(computed)s::jsonb, %(consents)s::jsonb, %(segments)s::jsonb,
    coalesce(%(accounts)s::jsonb, '[]'))
ON CONFLICT (profile_id) DO UPDATE SET entity = EXCLUDED.entity, identifiers = EXCLUDED.identifiers,
    changed = EXCLUDED.changed, delivery_id = EXCLUDED.delivery_id,
    traits = (CASE WHEN %(anew)s THEN '{{}}' ELSE now.traits END || EXCLUDED.traits) - %(no_traits)s::text[],
    computed = (CASE WHEN %(anew)s THEN '{{}}' ELSE now.computed END || EXCLUDED.computed) - %(no_computed)s::text[],
    consents = (CASE WHEN %(anew)s THEN '{{}}' ELSE now.consents END || EXCLUDED.consents) - %(no_consents)s::text[],
    segments = (CASE WHEN %(anew)s THEN '{{}}' ELSE now.segments END || EXCLUDED.segments) - %(no_segments)s::text[],
    accounts = CASE WHEN %(accounts)s::jsonb IS NULL AND NOT %(anew)s THEN now.accounts ELSE EXCLUDED.accounts END
"""
_ERASED = """
WITH members AS (DELETE FROM {prefix}members WHERE profile_id = ANY(%(ids)s)),
    profiles AS (DELETE FROM {prefix}profiles WHERE profile_id = ANY(%(ids)s)),
    others AS (UPDATE {prefix}members SET identifiers = (SELECT coalesce(jsonb_agg(one), '[]')
            FROM jsonb_array_elements(identifiers) AS one WHERE one <> ALL(%(gone)s::text[]::jsonb[]))
        FROM unnest(%(gone)s::text[]) AS known
        WHERE identifiers @> jsonb_build_array(known::jsonb) AND profile_id <> ALL(%(ids)s))
DELETE FROM {prefix}events WHERE profile_id = ANY(%(ids)s) OR (properties ? 'alert_id' AND
    jsonb_path_query_array(properties, '$.context.matches[*].who[*].profile_id') ?| %(ids)s)
"""
_EVENT = """
INSERT INTO {prefix}events (delivery_id, profile_id, event, at, message_id, properties, traits)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (delivery_id) DO NOTHING
"""
# The tables as they are made hold whatever is written: somebody has altered them, and can alter them back.
_ALTERED = (psycopg.errors.NotNullViolation, psycopg.errors.InvalidTextRepresentation)


class PostgresOptions(Options):
    """`connection` leads to a connection string or URL, with its password. `prefix` begins the names of the tables."""

    connection: SecretReference
    db_schema: str = Field(default="public", alias="schema")
    prefix: str = "headwater_"
    timeout_seconds: int = Field(default=10, ge=1, le=60)

    @field_validator("db_schema", "prefix")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("small letters, digits and _, beginning with a letter or _, at most 41")
        return name


class PostgresConnector(Connector):
    """Upserts, a transaction for each batch."""

    kind = "postgres"
    mode = "audience"
    max_batch = 500
    concurrency = 2
    keeps_order = True
    options_model = PostgresOptions

    def __init__(self, destination: str, options: PostgresOptions) -> None:
        super().__init__(destination, options)
        options.connection.read()  # that it is there
        self._options = options
        prefix = self._prefix = f"{options.db_schema}.{options.prefix}"
        self._member, self._profile, self._event = (text.format(prefix=prefix) for text in (_MEMBER, _PROFILE, _EVENT))
        self._tables, self._indexes = (text.format(prefix=prefix, bare=options.prefix) for text in (_TABLES, _INDEXES))
        self._indexing_failed = False
        self._erased = _ERASED.format(prefix=prefix)
        self._delete = f"DELETE FROM {prefix}profiles WHERE profile_id = %s"  # noqa: S608 - the prefix is checked
        self._connections: list[psycopg.Connection[Any]] = []
        self._connecting = threading.Lock()
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Write all in one transaction; if one of them cannot be written, one by one."""
        try:
            connection = self._connection()
        except ValueError as error:
            return [retry(str(error))] * len(deliveries)
        except psycopg.Error as error:
            return [retry(_told(error))] * len(deliveries)
        try:
            outcomes = self._written(connection, deliveries)
        except BaseException as error:
            self._forget(connection)
            if not isinstance(error, psycopg.Error):
                raise
            return [retry(_told(error))] * len(deliveries)
        self._idle.put(connection)
        return outcomes

    def _written(self, connection: psycopg.Connection[Any], deliveries: Sequence[Delivery]) -> list[Outcome]:
        with self._bounded(connection):
            try:
                with connection.transaction():
                    with connection.pipeline():
                        for delivery in deliveries:
                            connection.execute(*self._statement(delivery))
                    # Behind a pipeline the server measures no idle time, until it has answered something else.
                    connection.execute("SELECT")
                return [delivered()] * len(deliveries)
            except (psycopg.DataError, psycopg.IntegrityError):
                return self._one_by_one(connection, deliveries)

    def _one_by_one(self, connection: psycopg.Connection[Any], deliveries: Sequence[Delivery]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        waiting: dict[str, Outcome] = {}
        for delivery in deliveries:
            if delivery.profile_id in waiting:
                outcomes.append(waiting[delivery.profile_id])
                continue
            try:
                with connection.transaction():
                    connection.execute(*self._statement(delivery))
                outcomes.append(delivered())
            except _ALTERED as error:
                told = f"{_told(error)} (the table was altered: make it as it was)"
                outcomes.append(waiting.setdefault(delivery.profile_id, retry(told)))
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                outcomes.append(rejected(_told(error)))
        return outcomes

    def _statement(self, delivery: Delivery) -> tuple[str, Any]:
        body, at = delivery.body, datetime.fromtimestamp(delivery.at / 1000, UTC)
        if delivery.action in ("segment_entered", "segment_exited"):
            entered = delivery.action == "segment_entered"
            return self._member, (
                delivery.segment,
                delivery.profile_id,
                body.get("entity"),
                entered,
                at,
                body.get("version"),
                body.get("sequence", 0),
                _json(delivery.identifiers) if entered else None,
                _json(body.get("traits") or {}) if entered else None,
                delivery.delivery_id,
                # Consent that is taken back and given again changes no membership, and so no sequence.
                delivery.cause == "consent",
            )
        if delivery.action == "event":
            return self._event, (
                delivery.delivery_id,
                delivery.profile_id,
                _text(body.get("event")),
                at,
                _text(body.get("message_id")),
                _json(body.get("properties") or {}),
                _json(body.get("traits") or {}),
            )
        if delivery.action == "alert":
            return self._event, (
                delivery.delivery_id,
                delivery.profile_id,
                _text(body.get("alert")),
                at,
                _text(body.get("alert_id")),
                _json(body),
                _json(body.get("traits") or {}),
            )
        if delivery.action == "profile_erased":
            ids = [delivery.profile_id, *body.get("profile_ids", ())]
            return self._erased, {"ids": ids, "gone": [_json(one) for one in delivery.identifiers]}
        if delivery.action == "profile_deleted":
            return self._delete, (delivery.profile_id,)
        changed, removed = body.get("set") or {}, body.get("unset") or {}
        values: dict[str, Any] = {
            "id": delivery.profile_id,
            "entity": body.get("entity"),
            "identifiers": _json(delivery.identifiers),
            "changed": datetime.fromtimestamp(delivery.decided_at / 1000, UTC),
            "delivery_id": delivery.delivery_id,
            "accounts": _json(changed["accounts"]) if "accounts" in changed else None,
            "anew": body.get("change") in ("created", "split"),
        }
        for section in _SECTIONS:
            values[section] = _json(changed.get(section) or {})
            values[f"no_{section}"] = [_text(name) for name in removed.get(section, ())]
        return self._profile, values

    def _connection(self) -> psycopg.Connection[Any]:
        """One that nobody uses; a new one if there is none. With the first one the tables are made."""
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        try:
            return self._connected()
        except psycopg.OperationalError:
            if self._connections:
                # The server may have no room for more than those.
                with contextlib.suppress(queue.Empty):
                    return self._idle.get(timeout=self._options.timeout_seconds)
            raise

    def _connected(self) -> psycopg.Connection[Any]:
        timeout = self._options.timeout_seconds
        limits = {
            "statement_timeout": f"{timeout}s",
            "idle_in_transaction_session_timeout": f"{_LONGEST_CALL * timeout}s",
            "tcp_keepalives_idle": f"{_LONGEST_CALL * timeout}s",
            "tcp_keepalives_interval": f"{timeout}s",
            "tcp_keepalives_count": "3",
        }
        with self._connecting:
            connection = psycopg.connect(
                self._options.connection.read(),
                autocommit=True,
                connect_timeout=timeout,
                options=" ".join(f"-c {name}={value}" for name, value in limits.items()),
                application_name=f"headwater {self.destination}",
            )
            self._connections.append(connection)
        try:
            self._see_to_pooler(connection)
            self._see_to_tables(connection)
            self._see_to_indexes(connection)
        except psycopg.Error:
            self._forget(connection)
            raise
        return connection

    def _see_to_pooler(self, connection: psycopg.Connection[Any]) -> None:
        """What one prepares is there under the same name for whoever a pooler gives the server's connection to next."""
        with self._bounded(connection):
            [answers] = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
        if answers != connection.info.backend_pid:
            connection.prepare_threshold = None

    def _see_to_tables(self, connection: psycopg.Connection[Any]) -> None:
        """Make what is missing. Making asks for locks, and for an owner, of what is there too: IF NOT EXISTS or not."""
        with self._bounded(connection), connection.transaction():
            if self._has(connection, _MADE_BY_TABLES):
                return
            # Two that make the same table at once would disturb each other.
            connection.execute("SELECT pg_advisory_xact_lock(7305820195261382755)")
            connection.execute(self._tables)

    def _see_to_indexes(self, connection: psycopg.Connection[Any]) -> None:
        """Without them who is erased is found too, only slower."""
        with self._bounded(connection):
            has_all = self._has(connection, _MADE_BY_INDEXES)
        if has_all or self._indexing_failed:
            return
        try:
            with self._bounded(connection, _LONGEST_INDEXING_S), connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = '{_LONGEST_INDEXING_S - 60}s'")
                # Another thread, or another worker, is making them.
                [is_alone] = connection.execute("SELECT pg_try_advisory_xact_lock(7305820195261382756)").fetchone() or (
                    False,
                )
                if is_alone:
                    connection.execute(self._indexes)
        except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege) as error:
            self._indexing_failed = True
            _log.warning("%s: no indexes were made: %s", self.destination, error.diag.message_primary)

    def _has(self, connection: psycopg.Connection[Any], names: Sequence[str]) -> bool:
        """Whether all tables and indexes of these names are there, without asking for any lock on them."""
        return connection.execute(_HAS, ([self._prefix + name for name in names],)).fetchone() == (True,)

    @contextlib.contextmanager
    def _bounded(self, connection: psycopg.Connection[Any], longest_s: float | None = None) -> Iterator[None]:
        """Cut the connection under whatever takes too long in here: it then fails as one that broke."""

        def cut() -> None:
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as there,
            ):
                there.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(longest_s or _LONGEST_CALL * self._options.timeout_seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _forget(self, connection: psycopg.Connection[Any]) -> None:
        """Keep nothing of a server that failed: it may not be the one any more that the connection string leads to."""
        forgotten = [connection]
        with contextlib.suppress(queue.Empty):
            while True:
                forgotten.append(self._idle.get_nowait())
        for each in forgotten:
            each.close()
            self._connections.remove(each)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()


def _told(error: psycopg.Error) -> str:
    """What kind of error it is, and the server's own words at most: a connection string has a password in it."""
    return f"PostgreSQL {type(error).__name__}: {_words(error)}"


def _words(error: psycopg.Error) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    _, refused, words = str(error).partition("FATAL:  ")
    if refused:
        return words.partition("\n")[0]
    if isinstance(error, psycopg.ProgrammingError):
        return "what `connection` leads to is no connection string"
    return "it does not answer, or the connection broke"


def _json(value: Any) -> str:
    text = _encode(value).decode()
    return _without_nul(text) if "\\u0000" in text else text


_ESCAPED = re.compile(r"\\(u0000|.)")


def _without_nul(text: str) -> str:
    return _ESCAPED.sub(lambda found: "" if found[1] == "u0000" else found[0], text)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).replace("\x00", "")
