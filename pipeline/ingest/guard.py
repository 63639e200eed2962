"""What ingest does for those who were erased, and for the history: who is kept out, and the seal on every event.

the event's route was erased      nothing of it is kept, unless it brings a consent given after that: then its
                                  identifiers are welcome again, but for those that were erased after that
a weaker identifier was erased    the event is somebody else's, on a device or an address they shared: it is taken
                                  in without that identifier, and without the field that held it
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

import msgspec

from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules, Junk
from pipeline.records import Event, Suppression, encode
from pipeline.runtime.ports import Outputs

TOPIC = "suppressions"

MOST_WORDS = 128
_EXTERNAL_WORDS = 8
_WORD = re.compile(rb'"((?:[^"\\]|\\.){1,600})"|(?<![\w.])(\d{1,19})(?![\w.])')


class Vault(Protocol):
    """What the door knows of those who were erased, and the keys of all others."""

    @property
    def kept_out(self) -> Mapping[bytes, Suppression]:
        """By actor key: who was erased and has not consented anew."""
        ...

    def readmit(self, actor: bytes) -> None:
        """Somebody consents anew: this worker need not wait until it reads that."""
        ...

    def seal(self, actor: bytes, name: str, encoded: bytes) -> bytes:
        """An encoded event under the key of its route; as it is where the history is not sealed."""
        ...


def admit(event: Event, keys: Keys, vault: Vault, out: Outputs) -> bool:
    """Whether an event may be taken in. It may be changed by that: see above."""
    kept_out = vault.kept_out
    if not kept_out:
        return True
    route, *weaker = event.identifiers
    there = kept_out.get(keys.actor(route))
    if there is not None and not consents_after(event, there.at):
        return False
    for text in (route, *weaker):
        actor = keys.actor(text)
        erased = kept_out.get(actor)
        if erased is None:
            continue
        if there is not None and event.time > erased.at:
            vault.readmit(actor)
            back = Suppression(erased.at, erased.request_id, erased.epoch, event.time)
            out.upsert(TOPIC, actor, encode(back))
        else:
            _strip(event, text)
    return True


def mentions(value: bytes, rules: IdentityRules, keys: Keys, kept_out: Mapping[bytes, Suppression]) -> bool:
    """Whether bytes of which no event could be made name somebody who was erased: among their first texts and numbers,
    whatever field they stand in, is one of their identifiers."""
    words = list(islice(_words(value), MOST_WORDS))
    # `{"loyalty": "l-1"}`, or `{"id": "l-1", "collection": "users", "encoding": "none", "type": "loyalty"}`
    around = _EXTERNAL_WORDS if b'"externalIds"' in value else 0
    for at, word in enumerate(words):
        beside = words[max(0, at - max(1, around)) : at + around]
        for namespace in (*rules.namespaces, *beside):
            cleaned = rules.spelled(namespace, word) if namespace else Junk("")
            if not isinstance(cleaned, Junk) and keys.actor(f"{namespace}:{cleaned}") in kept_out:
                return True
    return False


def _words(value: bytes) -> Iterator[str]:
    for found in _WORD.finditer(value):
        text, number = found.groups()
        try:
            yield msgspec.json.decode(b'"%b"' % text, type=str) if text is not None else number.decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def consents_after(event: Event, at: int) -> bool:
    """Whether an event brings a consent that was given after `at`."""
    stated = event.context.get("consent") if event.context else None
    if type(stated) is not dict or event.time <= at:
        return False
    preferences = stated.get("categoryPreferences", stated)
    return type(preferences) is dict and any(_is_yes(each) for each in preferences.values())


def _is_yes(stated: Any) -> bool:
    return stated is True or stated == "granted"


def _strip(event: Event, text: str) -> None:
    event.identifiers.remove(text)
    namespace = text.partition(":")[0]
    if namespace in ("email", "phone"):
        event.traits.pop(namespace, None)
    elif namespace == "device_id" and isinstance(event.context.get("device"), dict):
        event.context["device"].pop("id", None)
    external = event.context.get("externalIds")
    if type(external) is list:
        event.context["externalIds"] = [one for one in external if type(one) is dict and one.get("type") != namespace]
    event.flags.append("kept_out_identifier")
