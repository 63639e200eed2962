"""Keys that can be destroyed one by one, and events under them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.identifiers import Keys
from pipeline.vault import DEPTH, KeyRing, Sealer, leaf_of, name_mark, sealed_name

SEED = bytes(range(16))
KEYS = Keys(b"vault tests")
ADA, BOB = KEYS.actor("user_id:ada"), KEYS.actor("user_id:bob")


def ring() -> KeyRing:
    fresh = KeyRing()
    fresh.begin(SEED)
    return fresh


def near(rng: random.Random) -> int:
    """Leaves that share much with others, so that spines are cut out of spines."""
    if rng.random() < 0.3:
        return rng.getrandbits(64)
    return 0x1234_5678_9ABC_DEF0 ^ (rng.getrandbits(8) << rng.randrange(56))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_destroying_takes_exactly_one_key_and_a_reader_of_the_topic_agrees(seed: int) -> None:
    rng = random.Random(seed)
    before, here = ring(), ring()
    leaves = [near(rng) for _ in range(60)]
    doomed = leaves[: rng.randrange(1, 40)]
    topic: dict[bytes, bytes] = {b"root": SEED.hex().encode()}
    log = [(b"root", SEED.hex().encode())]
    for leaf in doomed:
        changes = here.destroy(leaf)
        log += changes
        topic.update(changes)
        assert here.destroy(leaf) == []
    # One reads the topic as the cleaner left it, in whatever order; another was there all the time.
    compacted, follower = KeyRing(), KeyRing()
    items = list(topic.items())
    rng.shuffle(items)
    for key, value in items:
        compacted.add(key, value)
    for key, value in log:
        follower.add(key, value)
    for leaf in leaves:
        expected = None if leaf in doomed else before.seed(leaf)
        assert here.seed(leaf) == expected
        assert compacted.seed(leaf) == expected
        assert follower.seed(leaf) == expected


def test_nothing_that_is_kept_gives_a_destroyed_key() -> None:
    here = ring()
    secrets = []
    for number in range(50):
        leaf = leaf_of(KEYS.actor(f"user_id:{number}"))
        seed, depth = SEED, 0
        secrets.append(seed)
        full = ring()
        # Every seed on the way from the root to the leaf: with any of them the key could be had again.
        from pipeline.vault import keyring

        for depth in range(DEPTH):
            child = keyring._branch(leaf, depth)
            seed = keyring._children(seed)[child * 16 : child * 16 + 16]
            secrets.append(seed)
        assert full.seed(leaf) == seed
        here.destroy(leaf)
    kept = b"".join(spine.seeds for spine in here._spines.values())
    assert here._root is None
    assert not [seed for seed in secrets if seed in kept]


def test_a_change_is_two_records_whose_size_does_not_grow() -> None:
    here = ring()
    for number in range(1_000):
        changes = here.destroy(leaf_of(KEYS.actor(f"user_id:{number}")))
        assert len(changes) == 2
        assert all(len(value) <= 9 + DEPTH * 3 * 16 for _, value in changes)
    assert here.destroyed == 1_000


def test_what_was_sealed_opens_until_its_key_is_destroyed() -> None:
    sealer = Sealer(ring())
    ada, bob = sealer.seal(ADA, "Page Viewed", b'{"a":1}'), sealer.seal(BOB, "Page Viewed", b'{"b":1}')
    assert sealer.open(ada) == b'{"a":1}'
    assert b'"a"' not in ada
    assert sealed_name(ada) == sealed_name(bob) == name_mark("Page Viewed") != name_mark("Order Completed")
    assert sealer.open(b'{"kind":"marker"}') == b'{"kind":"marker"}'
    leaf = int.from_bytes(ada[1:9], "big")
    sealer.ring.destroy(leaf)
    sealer.drop(leaf)
    assert sealer.open(ada) is None
    assert sealer.open(bob) == b'{"b":1}'
    again = sealer.seal(ADA, "Page Viewed", b'{"a":2}')
    assert again[1:9] != ada[1:9], "a new life has a new key"
    assert sealer.open(again) == b'{"a":2}'


def test_the_same_event_gives_the_same_bytes_and_two_never_one_nonce() -> None:
    sealer = Sealer(ring())
    one, same, other = (sealer.seal(ADA, "E", value) for value in (b"{1}", b"{1}", b"{2}"))
    assert one == same
    assert one[13:25] != other[13:25]


@pytest.mark.parametrize("place", [0, 3, 10, 15, 30, -1])
def test_what_was_changed_is_refused(place: int) -> None:
    sealer = Sealer(ring())
    sealed = bytearray(sealer.seal(ADA, "E", b'{"event":"E"}'))
    sealed[place] ^= 1
    if place == 0:
        assert sealer.open(bytes(sealed)) == bytes(sealed), "not ours: the decoder refuses it"
        return
    with pytest.raises(ValueError, match="cannot be opened"):
        sealer.open(bytes(sealed))


def test_without_keys_nothing_is_sealed_in_silence() -> None:
    with pytest.raises(LookupError):
        Sealer(KeyRing()).seal(ADA, "E", b"{}")


def test_a_tombstone_of_the_topic_of_keys_says_nothing() -> None:
    """The privacy role writes one where an idle partition needs a record to begin a new segment."""
    sealer = Sealer(KeyRing())
    for key, value in sealer.ring.begin(bytes(16)):
        sealer.take(key, value)
    sealed = sealer.seal(b"a" * 32, "Page Viewed", b'{"kind":"event"}')
    sealer.take(b"\x00nudge", None)
    assert sealer.open(sealed) == b'{"kind":"event"}'
    for key, value in sealer.ring.destroy(int.from_bytes(sealed[1:9], "big")):
        sealer.take(key, value)
    assert sealer.open(sealed) is None
