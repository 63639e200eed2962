"""A person of ten identifiers is erased under load, and the bytes are looked at: every segment of every topic, every
file of every store, of the read model, of a file that is a destination, and of the logs. Topics are set to let go
sooner than they do by default, and nothing is compressed, or the scan would be blind; nothing else is helped along."""

import base64
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pipeline.admin import alter_topics, create_topics, wanted_topics
from pipeline.api.access import SCOPES, create_token
from pipeline.archive.files import TOPICS, Archive
from pipeline.broker import Kafka
from pipeline.records import DeadLetter, PrivacyRequest, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings
from tests.contracts.webhook_receiver import WebhookReceiver
from tests.kafka.deployment import Deployment, Role

DEFINITIONS = """
segment: visitors
when: {performed: {event: Page Viewed, within: 1h}}
---
destination: kept
kind: file
segments: "*"
profiles: true
events: "*"
alerts: "*"
path: PATH
---
destination: broken
kind: http
mode: audience
segments: "*"
url: URL/told
body: {who: "{profile_id}"}
erase: {url: "URL/delete/{profile_id}", method: POST}
allow_private: true
delivery: {first_retry: 1s, longest_retry: 1s}
---
alert: call_them
enters: busy_accounts
---
accounts: default
email_domains: true
---
segment: busy_accounts
entity: account
when: {members: {match: {in_segment: visitors}}}
"""
# Ten identifiers, and values under them: all words that nothing else in the world contains.
WHO = {
    "user_id": "zanthia-4711",
    "email": "zanthia@quorvex.example",
    "phone": "+4915123456789",
    "loyalty": "lq-zzq-0001",
    **{f"cookie{number}": f"ckzq-{number}-vexil" for number in range(6)},
}
VALUES = [*WHO.values(), "Zanthia Quorvexa", "Quorvexallee 9", "/secret-zq-path"]


def in_base64(value: str) -> list[bytes]:
    """How a value shows in base64, at each of the three places it may begin: dead letters and fragments are so."""
    forms = []
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + value.encode())
        forms.append(coded[-(-before * 8 // 6) : (before + len(value.encode())) * 8 // 6])
    return forms


FORMS = {form: value for value in VALUES for form in (value.encode(), *in_base64(value))}


def event(number: int, *namespaces: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Page Viewed",
        "messageId": f"m-{number}",
        "identifiers": {name: WHO[name] for name in namespaces},
        "properties": {"path": "/secret-zq-path"},
        "context": {"traits": {"name": "Zanthia Quorvexa", "street": "Quorvexallee 9"}},
        **more,
    }


def theirs() -> list[dict[str, Any]]:
    others = [name for name in WHO if name != "user_id"]
    alone = [event(number, name) for number, name in enumerate(WHO)]
    return alone + [event(100 + number, "user_id", name) for number, name in enumerate(others)]


def found_in(folder: Path, prefix: str = "") -> dict[str, set[str]]:
    """The files under a folder that hold any of the values, with which. With a `prefix`, of a broker's folder: the
    files of this workspace, of the broker's own topics, and its logs."""
    found: dict[str, set[str]] = {}
    for file in folder.rglob("*"):
        name = str(file.relative_to(folder))
        if not file.is_file() or (prefix and f"/{prefix}" not in name and "/__" not in name and "data/" in name):
            continue
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue  # it has just been deleted
        hits = {value for form, value in FORMS.items() if form in data}
        if hits:
            found[name] = hits
    return found


def found_in_archive(archive: Archive) -> dict[str, set[str]]:
    """The same of the archive, whose files are compressed: by its records."""
    found: dict[str, set[str]] = {}
    for topic in TOPICS:
        for partition in archive.partitions(topic):
            for record in archive.records(topic, partition):
                data = (record.key or b"") + (record.value or b"")
                hits = {value for form, value in FORMS.items() if form in data}
                if hits:
                    found.setdefault(f"archive of {topic}", set()).update(hits)
    return found


@contextmanager
def load(running: Deployment) -> Iterator[None]:
    """Others go on meanwhile, 200 events a second."""
    done = threading.Event()

    def go_on() -> None:
        number = 0
        while not done.wait(0.25):
            number += 50
            running.produce(
                {"type": "page", "messageId": f"o-{n}", "userId": f"other-{n % 40}", "anonymousId": f"tab-{n % 40}"}
                for n in range(number, number + 50)
            )

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_nothing_of_an_erased_person_is_left_on_any_disk(
    kafka: Kafka, new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2, forget_within_s=20)
    create_topics(settings, ["kept", "broken"])
    uncompressed = {"compression.type": "uncompressed"}
    alter_topics(settings, {topic.name: uncompressed for topic in wanted_topics(settings, ["kept", "broken"])})
    create_token(settings.state_dir / "tokens.yaml", "test", SCOPES, [], 1_000)
    more = {
        "HEADWATER_FORGET_WITHIN_S": "20",
        "HEADWATER_SCRUB_EVERY_S": "1",
        "HEADWATER_COMPRESS_STORES": "false",
        "HEADWATER_API__PORT": "0",
        "HEADWATER_ARCHIVE": str(tmp_path / "archive"),
        "HEADWATER_ARCHIVE_EVERY_S": "1",
    }
    archive = Archive(str(tmp_path / "archive"))
    # A destination that is broken, and says whom it has trouble with, until it is to forget them.
    words = [WHO["email"]]
    receiver = WebhookReceiver(lambda request: (503, {}, "; ".join(["no", *words]).encode()))
    closing = ExitStack()
    closing.callback(receiver.close)
    keepers = ("identity", "unify", "api")

    def left() -> dict[str, set[str]]:
        return found_in(Path(str(kafka.folder)), settings.prefix) | found_in(tmp_path) | found_in_archive(archive)

    with closing, Deployment(settings, tmp_path) as running:
        roles = {role: running.start(role, **more) for role in ("ingest", "deliver", "privacy", "archive", *keepers)}
        kept = str(tmp_path / "out" / "kept.jsonl")
        running.apply(DEFINITIONS.replace("PATH", kept).replace("URL", receiver.url.rstrip("/")))

        def again(end: Callable[[Role], Any]) -> None:
            for role in keepers:
                end(roles[role])
            for role in keepers:
                roles[role] = running.start(role, **more)

        # Before anybody else's: what the destination answers first is about them.
        running.produce(theirs())
        running.wait_until(lambda: "health-broken-0.json" in _names(found_in(settings.state_dir)), "it says so")
        with load(running):
            running.produce([b'{"type": "track", "userId": "zanthia-4711", "no event": "Quorvexallee 9"}'])
            running.wait_until(lambda: len(_person(running)) == len(WHO), "one person of ten identifiers")
            # The account that their address leads to knows them.
            running.wait_until(lambda: bool(running.members("busy_accounts")), "the account")
            exported = PrivacyRequest("x1", "export", "user_id:zanthia-4711", 1, "test")
            produce_all(settings, "privacy-requests", [(b"x1", encode(exported))])
            running.wait_until(lambda: "x1" in running.table("privacy-receipts"), "the export")
            # What only stands in memory would be found nowhere: they end in order, and write it down.
            again(Role.stop)
            before = left()
            parts = {part for name in before for part in name.replace(settings.prefix, "/").split("/")}
            assert parts >= {"identity", "unify", "api", "exports", "kept.jsonl", "archive of profile-changes"}, parts
            assert "health-broken-0.json" in parts
            topics = {part.rsplit("-", 1)[0] for part in parts}
            assert topics >= {
                *("raw", "profiles", "identities", "profile-changes", "segment-changes", "links", "identity-edges"),
                *("unify-changelog", "identity-changelog", "deliveries.kept", "dead-letters", "privacy-requests"),
                *("account-alerts", "deliveries.broken"),
            }
            assert "events" not in topics, "events are sealed"

            short = (
                *("raw", "dead-letters", "profile-changes", "segment-changes", "identity-conflicts"),
                *("privacy-requests", "account-alerts", "deliveries.kept", "deliveries.broken"),
            )
            by_age = {"retention.ms": "6000", "segment.ms": "3000", "file.delete.delay.ms": "500"}
            alter_topics(settings, {settings.topic(name): by_age for name in short})

            words.clear()
            done = running.command("privacy", "erase", "email:Zanthia@Quorvex.example", "--wait", "120")
            assert "identifiers: 10" in done.stdout, done.stdout
            began = time.monotonic()
            running.produce(theirs())  # a replay of everything, from the source
            running.produce([event(500, "cookie3"), event(501, "user_id", "email")])  # and late events of theirs
            running.produce([b'{"type": "track", "anonymousId": "q", "identifiers": {"loyalty": "lq-zzq-0001"}, "no'])
            running.wait_until(lambda: any(_without_content(running)), "a dead letter without what it was")
            remaining: Any = {"not looked": 1}
            # Far more than the bound that is set here, 20 s: a scan alone may take as long on a busy machine.
            while remaining and time.monotonic() - began < 150:
                time.sleep(3)
                remaining = left()
            assert not remaining, f"still left: {remaining}"
            _nobody(running)
            receipt = next(one for one in running.table("privacy-receipts").values() if one["request"] == "erase")
            states = {entry["store"]: entry["state"] for entry in receipt["stores"]}
            assert states["destination kept"] == "done" and states["archive"] == "by"
            assert "impossible" not in states.values()

        # Lost stores are made again from the changelogs: they bring nobody back.
        for role in keepers:
            roles[role].kill()
        for store in keepers:
            for file in sorted((settings.state_dir / store).rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
        again(Role.kill)
        running.produce([event(600 + number, name) for number, name in enumerate(WHO)])
        running.wait_until_idle()
        _nobody(running)
        again(Role.stop)
        assert not found_in(settings.state_dir)

        # A consent given anew does, to a new profile.
        consents = {"context": {"consent": {"news": "granted"}}}
        running.produce([{**event(700, "user_id", "email"), **consents}])
        running.wait_until(lambda: len(_person(running)) == 2, "who has consented anew is welcome")
        # Sent at once it might overtake the consent, in another partition.
        running.produce([event(701, "email")])
        person = next(p for p in running.table("profiles").values() if _is(p))
        running.wait_until(lambda: _total(running, person["profile_id"]) == 2, "both events count, and no older one")


def _names(paths: Iterable[str]) -> set[str]:
    return {Path(path).name for path in paths}


def _is(profile: dict[str, Any]) -> bool:
    return any(pair["value"] in WHO.values() for pair in profile["identifiers"])


def _person(running: Deployment) -> set[str]:
    people = [p for p in running.table("profiles").values() if _is(p)]
    return {pair["value"] for pair in people[0]["identifiers"]} if len(people) == 1 else set()


def _total(running: Deployment, profile_id: str) -> int:
    return sum(total["count"] for total in running.table("profiles")[profile_id]["totals"].values())


def _without_content(running: Deployment) -> list[bool]:
    letters = [msgspec.json.decode(r.value, type=DeadLetter) for r in running.read("dead-letters") if r.value]
    return [one.value is None and "erased" in one.detail for one in letters]


def _nobody(running: Deployment) -> None:
    assert not [profile for profile in running.table("profiles").values() if _is(profile)]
    assert not [key for key in running.table("identities") if key.split(":")[-1] in WHO.values()]
