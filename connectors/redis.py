"""Redis or Valkey: profiles, memberships and identifiers for look-ups while a page is made.

    destination: page_cache
    kind: redis
    segments: "*"
    profiles: true
    url: {env: PAGE_CACHE_URL}              # redis://user:password@host:6379/0, or rediss:// with TLS

    key (behind the prefix)             holds
    members:SEGMENT                     a set of profile_ids
    segments:PROFILE_ID                 a hash: segment → {"since", "sequence", "version", "delivery_id"}
    profile:PROFILE_ID                  a hash: "traits.plan" → JSON, and so for each section; entity, identifiers
    identifier:NAMESPACE:VALUE          the profile_id
    events                              a stream of forwarded events, bounded to the newest `max_events`

Besides, `sequences:PROFILE_ID` keeps how far each membership is, so that a repetition after a crash is told from news
also when the person has left by now, `known:PROFILE_ID` the identifiers that lead to a profile, `also:NAMESPACE:VALUE`
who else an identifier belongs to while a merge is told in parts (profiles have no order among each other: the one that
ends may be heard of last), and `seen:ID` for a day which events have come: one that comes again after more than a day,
from a server or a role that was away so long, stands twice in the stream, with the same delivery_id.

Each delivery is one script: it happens whole or not at all, and not any more once nobody waits for its answer: what a
server hears late, because it hung or the network did, might be older than what it has been told since. All keys must be
on one node; in a cluster give a prefix with a hash tag, `{headwater}:`. Which node that is it says itself (MOVED).

After every failure the address is read and connected to anew: a name may lead to another server since a failover, and
the password may be another one. A failover may lose what the old master had not passed on yet, and eviction
(`maxmemory-policy` other than `noeviction`) takes what it likes: `headwater destinations resync` tells memberships and
profiles again, not events.
"""

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from pydantic import Field
from redis.exceptions import MovedError

from connectors.base import Connector, Options, Outcome, SecretReference, delivered, rejected, retry
from pipeline.records import Delivery

_encode = msgspec.json.Encoder().encode
_PAGE = 1_000

_FUNCTIONS = """
local prefix, profile, id = ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[4]) then
    return redis.error_reply('LATE it was heard when nobody waited for the answer any more')
end
local function key(kind) return prefix .. kind .. ':' .. profile end
local function is_new(segment, sequence)
    local before = tonumber(redis.call('HGET', key('sequences'), segment) or '-1')
    if tonumber(sequence) < before then return false end
    redis.call('HSET', key('sequences'), segment, sequence)
    return true
end
local function lead_here(identifiers)
    for _, identifier in ipairs(identifiers) do
        local there, also = prefix .. 'identifier:' .. identifier, prefix .. 'also:' .. identifier
        local before = redis.call('GET', there)
        if before and before ~= profile then redis.call('SADD', also, before) end
        redis.call('SREM', also, profile)
        redis.call('SET', there, profile)
        redis.call('SADD', key('known'), identifier)
    end
end
local function let_go(identifier)
    local there, also = prefix .. 'identifier:' .. identifier, prefix .. 'also:' .. identifier
    redis.call('SREM', also, profile)
    if redis.call('GET', there) == profile then
        local heir = redis.call('SPOP', also)
        if heir then redis.call('SET', there, heir) else redis.call('DEL', there) end
    end
end
local function lead_nowhere(except)
    for _, identifier in ipairs(redis.call('SMEMBERS', key('known'))) do
        if not except[identifier] then
            let_go(identifier)
            redis.call('SREM', key('known'), identifier)
        end
    end
end
"""
_ENTERED = """
if is_new(ARGV[5], ARGV[6]) then
    redis.call('SADD', prefix .. 'members:' .. ARGV[5], profile)
    redis.call('HSET', key('segments'), ARGV[5], ARGV[7])
    lead_here(cjson.decode(ARGV[8]))
end
"""
_EXITED = """
if is_new(ARGV[5], ARGV[6]) then
    redis.call('SREM', prefix .. 'members:' .. ARGV[5], profile)
    redis.call('HDEL', key('segments'), ARGV[5])
end
"""
_CHANGED = """
if ARGV[5] == 'anew' then redis.call('DEL', key('profile')) end
for name, value in pairs(cjson.decode(ARGV[6])) do redis.call('HSET', key('profile'), name, value) end
for _, name in ipairs(cjson.decode(ARGV[7])) do redis.call('HDEL', key('profile'), name) end
local now = cjson.decode(ARGV[8])
local kept = {}
for _, identifier in ipairs(now) do kept[identifier] = true end
lead_nowhere(kept)
lead_here(now)
"""
_DELETED = """
lead_nowhere({})
for _, segment in ipairs(redis.call('HKEYS', key('segments'))) do
    redis.call('SREM', prefix .. 'members:' .. segment, profile)
end
redis.call('DEL', key('profile'), key('segments'), key('known'))
"""
_ERASED = """
for _, id in ipairs(cjson.decode(ARGV[5])) do
    profile = id
    lead_nowhere({})
    for _, segment in ipairs(redis.call('HKEYS', key('segments'))) do
        redis.call('SREM', prefix .. 'members:' .. segment, profile)
    end
    redis.call('DEL', key('profile'), key('segments'), key('known'), key('sequences'))
end
for _, identifier in ipairs(cjson.decode(ARGV[6])) do
    local there, also = prefix .. 'identifier:' .. identifier, prefix .. 'also:' .. identifier
    local others = redis.call('SMEMBERS', also)
    others[#others + 1] = redis.call('GET', there) or nil
    for _, other in ipairs(others) do redis.call('SREM', prefix .. 'known:' .. other, identifier) end
    redis.call('DEL', there, also)
end
"""
_EVENT = """
if redis.call('SET', prefix .. 'seen:' .. id, '1', 'NX', 'EX', 86400) then
    redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', ARGV[5], '*', 'delivery_id', id, 'profile_id', profile,
               'event', ARGV[6])
end
"""


class RedisOptions(Options):
    """`url` leads to the address with user and password. `prefix` begins every key."""

    url: SecretReference
    prefix: str = Field(default="headwater:", max_length=100)
    max_events: int = Field(default=100_000, ge=1, le=100_000_000)
    timeout_seconds: float = Field(default=5, gt=0, le=60)


class RedisConnector(Connector):
    """Scripts, sent in pipelines."""

    kind = "redis"
    mode = "audience"
    max_batch = 500
    concurrency = 2
    keeps_order = True
    options_model = RedisOptions

    def __init__(self, destination: str, options: RedisOptions) -> None:
        super().__init__(destination, options)
        self._options = options
        self._lock = threading.Lock()
        self._elsewhere: tuple[str, int] | None = None
        self._redis: redis.Redis | None = self._open()
        scripts = (_ENTERED, _EXITED, _CHANGED, _DELETED, _ERASED, _EVENT)
        self._scripts: dict[str, Any] = {text: redis.Redis().register_script(_FUNCTIONS + text) for text in scripts}

    def _open(self) -> redis.Redis:
        address = self._options.url.read()
        if not address.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError(f"the url of destination {self.destination} begins with redis://, rediss:// or unix://")
        try:
            client = redis.Redis.from_url(
                address,
                socket_timeout=self._options.timeout_seconds,
                socket_connect_timeout=self._options.timeout_seconds,
                client_name=f"headwater-{self.destination}",
            )
        except ValueError:
            # Its own words repeat what stands before a slash in a password.
            told = "is none; escape what is no letter or digit in user and password (%2F for a slash)"
            raise ValueError(f"the url of destination {self.destination} {told}") from None
        if self._elsewhere is not None:
            client.connection_pool.connection_kwargs |= dict(zip(("host", "port"), self._elsewhere, strict=True))
        return client

    def _client(self) -> redis.Redis:
        with self._lock:
            if self._redis is None:
                self._redis = self._open()
            return self._redis

    def _forget(self, client: redis.Redis, errors: Sequence[Exception]) -> None:
        """Keep nothing of a server that failed: it may not be the one any more that the address leads to."""
        with self._lock:
            if self._redis is client:
                self._redis = None
                self._elsewhere = next(filter(None, map(_moved_to, errors)), None)
        client.connection_pool.disconnect(inuse_connections=False)

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Send all in one pipeline; each script says for itself whether it could be done."""
        try:
            client = self._client()
        except ValueError as error:
            return [retry(str(error))] * len(deliveries)
        try:
            pipeline = client.pipeline(transaction=False)
            not_after_ms = self._not_after_ms(client)
            for delivery in deliveries:
                script, arguments = self._script(delivery)
                who = (self._options.prefix, delivery.profile_id, delivery.delivery_id, not_after_ms)
                # One key, and the node of a cluster that has not got it says who has.
                self._scripts[script]([f"{self._options.prefix}events"], [*who, *arguments], client=pipeline)
            answers = pipeline.execute(raise_on_error=False)
            self._forget_events(client, {one for delivery in deliveries for one in _erased(delivery)})
        except redis.RedisError as error:
            self._forget(client, [error])
            return [retry(_told(error))] * len(deliveries)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors:
            self._forget(client, errors)
        return self._outcomes(deliveries, answers)

    def _not_after_ms(self, client: redis.Redis) -> int:
        """Until when, by the server's clock, an answer is waited for."""
        seconds, microseconds = client.time()
        return int(seconds * 1000 + microseconds / 1000 + self._options.timeout_seconds * 1000)

    def _forget_events(self, client: redis.Redis, profile_ids: set[str]) -> None:
        """Take the events of these out of the stream, a page at a time: it may be long, and others want the server."""
        stream, gone = f"{self._options.prefix}events", {one.encode() for one in profile_ids}
        start = "-"
        while gone:
            page: Any = client.xrange(stream, min=start, count=_PAGE)
            # What is said of an account names those who stand behind it, in the event's text.
            theirs = [
                entry
                for entry, fields in page
                if fields.get(b"profile_id") in gone or any(one in fields.get(b"event", b"") for one in gone)
            ]
            if theirs:
                client.xdel(stream, *theirs)
            if len(page) < _PAGE:
                return
            start = f"({page[-1][0].decode()}"

    def _outcomes(self, deliveries: Sequence[Delivery], answers: list[Any]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        failed: dict[str, Outcome] = {}
        for delivery, answer in zip(deliveries, answers, strict=True):
            before = failed.get(delivery.profile_id)
            if before is not None:
                outcomes.append(before)
            elif isinstance(answer, redis.DataError):
                outcomes.append(rejected(_told(answer)))
            elif isinstance(answer, Exception):
                failed[delivery.profile_id] = retry(_told(answer))
                outcomes.append(failed[delivery.profile_id])
            else:
                outcomes.append(delivered())
        return outcomes

    def _script(self, delivery: Delivery) -> tuple[str, tuple[Any, ...]]:
        body = delivery.body
        identifiers = _encode([f"{one.namespace}:{one.value}" for one in delivery.identifiers])
        segment, sequence = delivery.segment or "", int(body.get("sequence", 0))
        if delivery.action == "segment_entered":
            held = {
                "since": delivery.at,
                "sequence": sequence,
                "version": body.get("version"),
                "delivery_id": delivery.delivery_id,
            }
            return _ENTERED, (segment, sequence, _encode(held), identifiers)
        if delivery.action == "segment_exited":
            return _EXITED, (segment, sequence)
        if delivery.action == "profile_erased":
            return _ERASED, (_encode(_erased(delivery)), identifiers)
        if delivery.action == "profile_deleted":
            return _DELETED, ()
        if delivery.action in ("event", "alert"):
            return _EVENT, (self._options.max_events, _encode({"at": delivery.at, **body}))
        fields = {
            f"{section}.{name}": _encode(value).decode()
            for section, entries in (body.get("set") or {}).items()
            if isinstance(entries, dict)
            for name, value in entries.items()
        }
        lists = {name: _encode(value).decode() for name, value in (body.get("set") or {}).items() if _is_list(value)}
        fields |= lists | {"entity": str(body.get("entity") or ""), "identifiers": identifiers.decode()}
        gone = [f"{section}.{name}" for section, names in (body.get("unset") or {}).items() for name in names]
        anew = "anew" if body.get("change") in ("created", "split") else ""
        return _CHANGED, (anew, _encode(fields), _encode(gone), identifiers)

    def close(self) -> None:
        """Close all connections."""
        if self._redis is not None:
            self._redis.close()


def _moved_to(error: Exception) -> tuple[str, int] | None:
    """Where the node of a cluster says that the keys are; clients of before 6 have no error of its own for that."""
    words = str(error).split()
    if not isinstance(error, MovedError) and words[:1] != ["MOVED"]:
        return None
    host, _, port = words[-1].rpartition(":")
    return (host, int(port)) if host and port.isdigit() else None


def _told(error: Exception) -> str:
    """What kind of error it is, and the server's own words at most: an address has a password in it."""
    kind = f"Redis {type(error).__name__}"
    return f"{kind}: {error}" if isinstance(error, redis.ResponseError | redis.DataError) else kind


def _erased(delivery: Delivery) -> list[str]:
    """All the names of whom a delivery asks to delete."""
    if delivery.action != "profile_erased":
        return []
    return [delivery.profile_id, *delivery.body.get("profile_ids", ())]


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
