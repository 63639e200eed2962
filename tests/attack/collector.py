"""`python -m tests.attack.collector`: collectors and their broker are killed at random under load; then it is counted.

    python -m tests.attack.collector --kills 100 --seed 1

Callers of our own (which send again until they are answered 200), and two SDKs as they are (which send again by rules
of their own), send to two collectors that share a port. A collector gets SIGKILL or SIGTERM, the broker SIGKILL or a
pause; or both are killed. At the end:

- every message that was answered 200 is in the raw topic;
- behind ingest and unify every message in the raw topic counts once, however often it came;
- an SDK that reported no failure has every message there.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from pipeline.admin import create_topics
from pipeline.broker import LocalKafka
from pipeline.settings import Settings, load
from tests.kafka.deployment import Deployment, Role

KEY = "key-of-the-campaign"
COLLECTORS = 2
CALLERS = 4
PEOPLE = 50
FAULTS = {"collector SIGKILL": 5, "collector SIGTERM": 1, "broker SIGKILL": 2, "broker paused": 1, "both SIGKILL": 1}


@dataclass
class Told:
    """What callers know of their messages. A set may be added to by several threads."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    requests_again: int = 0


@dataclass(frozen=True)
class Verdict:
    """What was counted. `wrong` is empty when everything is as it must be."""

    faults: dict[str, int]
    sent: int
    acknowledged: int
    in_raw: int
    again_in_raw: int
    statuses: dict[str, int]
    wrong: list[str]


class Caller(threading.Thread):
    """Sends batches, each again until it is answered 200."""

    def __init__(self, number: int, url: str, told: Told, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(number)
        self._number = number
        self._url = url
        self._told = told
        self._over = over

    def run(self) -> None:
        count = 0
        while not self._over.is_set():
            size = self._random.choice((1, 1, 3, 30))
            ids = [f"c{self._number}-{count + each}" for each in range(size)]
            count += size
            self._told.sent.update(ids)
            if self._send(ids):
                self._told.acknowledged.update(ids)
            time.sleep(self._random.uniform(0.01, 0.08))

    def _send(self, ids: list[str]) -> bool:
        events = [
            {"type": "track", "event": "Hit", "userId": f"p-{self._random.randrange(PEOPLE)}", "messageId": each}
            for each in ids
        ]
        first, give_up = True, time.monotonic() + 120
        # A new connection each time: the kernel gives it to a collector that lives.
        while time.monotonic() < give_up:
            if not first:
                self._told.requests_again += 1
                time.sleep(self._random.uniform(0.05, 0.3))
            first = False
            try:
                answer = httpx.post(f"{self._url}/v1/batch", json={"batch": events}, auth=(KEY, ""), timeout=20)
            except httpx.TransportError as error:
                self._told.statuses[type(error).__name__] += 1
                continue
            self._told.statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                return True
        return False


class Sdk(threading.Thread):
    """An SDK as it is shipped; what it reports as failed is all that may be missing."""

    def __init__(self, module: str, url: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        import importlib

        self.name = module.partition(".")[0]
        self._over = over
        self.sent: set[str] = set()
        self.failed: set[str] = set()
        client: Any = importlib.import_module(f"{module}.client").Client
        self._client = client(KEY, host=url, on_error=self._failure, upload_interval=0.2, timeout=5)

    def _failure(self, _: Any, items: Any) -> None:
        self.failed.update(item["messageId"] for item in items)

    def run(self) -> None:
        count = 0
        while not self._over.is_set():
            message = f"{self.name}-{count}"
            taken, _ = self._client.track(f"p-{count % PEOPLE}", "Hit", {"n": count}, message_id=message)
            if taken:  # else its queue is full, and it says so
                self.sent.add(message)
            count += 1
            time.sleep(0.1)
        self._client.flush()
        self._client.join()


class Attack:
    """One campaign on a broker of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._kafka = LocalKafka(load().cache_dir)
        self._settings = Settings.model_validate(
            {
                "bootstrap_servers": self._kafka.bootstrap_servers,
                "prefix": "attack.",
                "state_dir": folder / "state",
                "secret": "of the attack",
                "partitions": 2,
            }
        )
        create_topics(self._settings)
        self.deployment = Deployment(self._settings, folder)
        self._port = _free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._collectors: list[Role] = []

    def close(self) -> None:
        self.deployment.__exit__()
        self._kafka.stop()

    def run(self, kills: int, with_sdks: bool = True) -> Verdict:
        """So many faults under load, then the count. SDKs may wait for minutes before they send again."""
        self._collectors = [self._collector() for _ in range(COLLECTORS)]
        self.deployment.wait_until(self._ready, "the collectors are ready")
        told, over = Told(), threading.Event()
        callers = [Caller(number, self._url, told, over) for number in range(CALLERS)]
        sdks = [Sdk(module, self._url, over) for module in ("segment.analytics", "rudderstack.analytics") if with_sdks]
        for thread in (*callers, *sdks):
            thread.start()
        done: Counter[str] = Counter()
        for number in range(kills):
            # On a busy machine a collector takes longer to start than to be killed again: that would attack nothing.
            self.deployment.wait_until(self._ready, "a collector is ready")
            time.sleep(self._random.uniform(0.2, 1.5))
            [fault] = self._random.choices(list(FAULTS), list(FAULTS.values()))
            self._do(fault)
            done[fault] += 1
            if (number + 1) % 10 == 0:
                print(f"{number + 1}/{kills} faults, {len(told.acknowledged):,} acknowledged", flush=True)
        over.set()
        for thread in (*callers, *sdks):
            thread.join(180)
        return self._judged(done, told, sdks)

    def _collector(self) -> Role:
        more = {
            "HEADWATER_COLLECTOR__PORT": str(self._port),
            "HEADWATER_COLLECTOR__WRITE_KEYS": json.dumps({KEY: "campaign"}),
            "HEADWATER_COLLECTOR__ACK_TIMEOUT_SECONDS": "3",
        }
        return self.deployment.start("collector", **more)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def _do(self, fault: str) -> None:
        if fault.startswith("collector"):
            place = self._random.randrange(COLLECTORS)
            process = self._collectors[place].process
            process.send_signal(signal.SIGKILL if fault.endswith("SIGKILL") else signal.SIGTERM)
            code = process.wait(40)
            # Before it listens it has promised nothing, and ends like any program.
            if fault.endswith("SIGTERM") and code != 0 and "listens" in self._collectors[place].log.read_text():
                raise AssertionError(f"a collector that was asked to stop ended with {code}")
            self._collectors[place] = self._collector()
        elif fault == "broker SIGKILL":
            self._kafka.kill()
            time.sleep(self._random.uniform(0.0, 4.0))
            self._kafka.restart()
        elif fault == "both SIGKILL":
            # What a collector had answered for, and not yet handed over, would be lost by this.
            self._kafka.kill()
            time.sleep(self._random.uniform(0.2, 2.0))
            self._do("collector SIGKILL")
            self._kafka.restart()
        else:
            self._kafka.pause()
            time.sleep(self._random.uniform(0.5, 6.0))
            self._kafka.resume()

    def _judged(self, done: Counter[str], told: Told, sdks: list[Sdk]) -> Verdict:
        people: dict[str, str] = {}
        came: Counter[str] = Counter()
        for value in self.deployment.values("raw"):
            came[value["messageId"]] += 1
            people[value["messageId"]] = value["userId"]
        wrong = []
        if lost := told.acknowledged - set(came):
            wrong.append(f"{len(lost)} acknowledged messages are not in the raw topic, like {sorted(lost)[:3]}")
        for sdk in sdks:
            if lost := sdk.sent - sdk.failed - set(came):
                wrong.append(f"{len(lost)} messages of {sdk.name} are lost without a word, like {sorted(lost)[:3]}")
        if strange := set(came) - told.sent - {each for sdk in sdks for each in sdk.sent}:
            wrong.append(f"{len(strange)} messages nobody sent, like {sorted(strange)[:3]}")
        wrong += self._counted(Counter(people.values()))
        return Verdict(
            faults=dict(done),
            sent=len(told.sent) + sum(len(sdk.sent) for sdk in sdks),
            acknowledged=len(told.acknowledged) + sum(len(sdk.sent - sdk.failed) for sdk in sdks),
            in_raw=len(came),
            again_in_raw=sum(came.values()) - len(came),
            statuses=dict(told.statuses),
            wrong=wrong,
        )

    def _counted(self, expected: Counter[str]) -> list[str]:
        """Run the stages over all that came; what profiles count must be the distinct messages of each person."""
        for role in ("ingest", "identity", "unify"):
            self.deployment.start(role)

        def counts() -> dict[str, int]:
            found = {}
            for profile in self.deployment.table("profiles").values():
                [user] = [pair["value"] for pair in profile["identifiers"] if pair["namespace"] == "user_id"]
                found[user] = profile["totals"]["Hit"]["count"]
            return found

        try:
            self.deployment.wait_until(lambda: counts() == expected, "every message counts once")
        except AssertionError:
            found = counts()
            different = {
                user: (found.get(user), wanted) for user, wanted in expected.items() if found.get(user) != wanted
            }
            return [f"people whose count (found, expected) is wrong: {dict(list(different.items())[:5])}"]
        letters = self.deployment.values("dead-letters")
        return [f"{len(letters)} dead letters, like {letters[0]['detail']}"] if letters else []


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack.collector", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(Path(folder), given.seed)
        try:
            verdict = attack.run(given.kills)
        finally:
            attack.close()
    print(msgspec.json.format(msgspec.json.encode(verdict)).decode())
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
