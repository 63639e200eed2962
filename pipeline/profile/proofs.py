"""Where a consent came from: its source, the version of the wording that was shown, and the proof of it.

A proof is of one word on one purpose: (event time, granted, source, version, proof). They join as consents do: the
newest counts, at the same instant that of a denial, and of equal ones the greater text. One that is not of the word
that counts by now is not shown.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

Proof = tuple[int, bool, str, str, str]

_LONGEST_NAME, _LONGEST_PROOF = 200, 2_000


def prove(proofs: dict[str, Proof], consents: Iterable[tuple[str, bool]], time: int, stated: Mapping[str, Any]) -> None:
    """Keep what an event's `context.consent` says of where these consents came from."""
    texts = tuple(_text(stated.get(name)) for name in ("source", "version", "proof"))
    if any(texts):
        source, version, proof = texts[0][:_LONGEST_NAME], texts[1][:_LONGEST_NAME], texts[2]
        if len(proof) > _LONGEST_PROOF:
            # A part of a proof proves nothing; by its hash the whole can be told, wherever it is kept.
            proof = f"sha256:{sha256(proof.encode()).hexdigest()}"
        for purpose, granted in consents:
            _keep(proofs, purpose, (time, granted, source, version, proof))


def join_proofs(one: Mapping[str, Proof], other: Mapping[str, Proof]) -> dict[str, Proof]:
    """The proofs of two fragments."""
    joined = dict(one)
    for purpose, proof in other.items():
        _keep(joined, purpose, proof)
    return joined


def proof_of(proofs: Mapping[str, Proof], purpose: str, word: tuple[int, bool] | None) -> Proof | None:
    """The proof of the word that counts for a purpose, if there is one."""
    found = proofs.get(purpose)
    return found if found is not None and word is not None and found[:2] == tuple(word) else None


def _keep(proofs: dict[str, Proof], purpose: str, proof: Proof) -> None:
    there = proofs.get(purpose)
    if there is None or _order(proof) > _order(there):
        proofs[purpose] = proof


def _order(proof: Proof) -> tuple[int, bool, str, str, str]:
    return (proof[0], not proof[1], *proof[2:])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
