"""Who is looked for is found among millions, without these being kept in memory."""

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pipeline.privacy import export
from pipeline.privacy.export import Subject
from pipeline.records import IdentifierPair, IdentityPointer, ProfileDocument, encode
from pipeline.runtime.kafka import doors
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

SETTINGS = Settings.model_validate({"prefix": "w.", "secret": "s", "bootstrap_servers": "k:1"})
OTHERS = 20_000
PADDING = "x" * 1_000


class Topics:
    """A reader of topics that are made while they are read."""

    def __init__(self, settings: Settings, topics: list[str], **_: Any) -> None:
        [self.topic] = topics

    def __enter__(self) -> "Topics":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_to_end(self) -> Iterator[Record]:
        for offset, (key, value) in enumerate(of_profiles() if self.topic == "profiles" else of_identities()):
            yield Record(self.topic, 0, offset, key, value, 0)


def of_profiles() -> Iterator[tuple[bytes, bytes]]:
    pair = [IdentifierPair("user_id", "ada")]
    for number in range(OTHERS):
        one = ProfileDocument(f"p{number}", "person", pair, 1, traits={"about": f"{number}{PADDING}"})
        yield one.profile_id.encode(), encode(one)


def of_identities() -> Iterator[tuple[bytes, bytes]]:
    for number in range(OTHERS):
        yield f"user_id:u{number}{PADDING}".encode(), encode(IdentityPointer(f"p{number}", 1))
    # Ada was p7 once; p7 is p9 by now.
    yield b"p7", encode(IdentityPointer("p8", 2, retired=True))
    yield b"p8", encode(IdentityPointer("p9", 3, retired=True))
    yield b"email:ada", encode(IdentityPointer("p7", 1))
    yield b"user_id:ada", encode(IdentityPointer("p9", 1))


def test_what_is_kept_of_somebody_who_is_exported_is_not_what_there_is_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "TopicReader", Topics)
    monkeypatch.setattr(export, "TopicReader", Topics)
    tracemalloc.start()
    try:
        found = Subject(SETTINGS, "user_id:ada")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.document.profile_id == "p9" and found.former == ["p7", "p8"]
    assert set(found.identifiers) == {
        "user_id:ada",
        "email:ada",
        f"user_id:u7{PADDING}",
        f"user_id:u8{PADDING}",
        f"user_id:u9{PADDING}",
    }
    assert most < 2_000_000, f"{most:,} bytes for one of {OTHERS:,}"


def leads_to(text: str, living: str, pointers: dict[str, IdentityPointer]) -> bool:
    seen: set[str] = set()
    while text in pointers and text not in seen:
        seen.add(text)
        text = pointers[text].profile_id
    return text == living


@pytest.mark.parametrize("seed", range(50))
def test_all_that_leads_to_somebody_is_found_over_whatever_ways(seed: int) -> None:
    rng = random.Random(seed)
    log: list[tuple[str, IdentityPointer | None]] = []
    for _ in range(60):
        if rng.random() < 0.4:
            former, to = sorted(rng.sample(range(8), 2))
            log.append((f"p{former}", IdentityPointer(f"p{to}", 1, retired=True)))
        else:
            pointer = IdentityPointer(f"p{rng.randrange(8)}", 1) if rng.random() < 0.9 else None
            log.append((f"user_id:u{rng.randrange(12)}", pointer))
    now: dict[str, IdentityPointer] = {}
    for text, told in log:
        if told is None:
            now.pop(text, None)
        else:
            now[text] = told
    living = "p7"
    expected = {text for text in now if leads_to(text, living, now)}
    found = export._leading_to(living, lambda: log)
    assert set(found) == expected
    assert msgspec.to_builtins(found) == {text: msgspec.to_builtins(now[text]) for text in expected}
