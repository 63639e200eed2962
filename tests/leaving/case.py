"""One random policy, one random person, and the judgement of everything that left about them."""

import copy
import random
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from pipeline.definitions.apply import plan_apply
from pipeline.definitions.catalog import Catalog, generation_plan
from pipeline.definitions.loader import Written
from pipeline.definitions.segments import leaves_of
from pipeline.errors import DefinitionError
from pipeline.plans import GenerationPlan
from tests.leaving.policies import CHANNELS, COUNTRIES, EVENTS, PURPOSES, policy
from tests.oracle.leaving import Path, Policy, Said
from tests.rooms.unify.harness import SECOND, World, id_of

PERSON = "user_id:u"
_MARK = re.compile(r"zq\d+qz")
_KINDS = {key: key for key in ("segment", "contract", "destination", "consent", "alert")} | {"computed": "trait"}
Sections = dict[str, Any]


class Case:
    """`run` raises AssertionError with what left and should not have. `left`: fields that left; `kept`: fields that did
    not; `refused`: destinations that `apply` refused, `refused_segments`: segments."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.documents = policy(self.rng)
        self.left = self.kept = self.refused = self.refused_segments = self.deliveries = 0
        self.marks = 0
        self.sent: dict[str, dict[str, Any]] = {}
        self.traits: dict[str, Any] = {}
        self.consents: dict[str, bool] = {}
        self.there: dict[str, set[str]] = {}
        self.mirrored: dict[str, Sections | None] = {}
        self.seen: dict[str, int] = {}

    def run(self) -> None:
        plan = self._applied()
        self.policy = Policy(self.documents)
        bodies = tuple(each for each in self.documents if "segment" in each or "computed" in each)
        self.world = World(bodies, partitions=1, activation=plan.activation)
        at = 0
        for _ in range(self.rng.randrange(4, 12)):
            at += self.rng.choice((1, SECOND))
            # What time alone changes up to the event is judged by what they allowed until then.
            self.world.rest(at)
            self._judge()
            before = len(self.sent)
            message_id = f"m{before}"
            event = self._event(message_id)
            self.world.send(PERSON, "email:ada@example.org", at=at, message_id=message_id, **copy.deepcopy(event))
            self.world.rest(at)
            self._judge(message_id)
        self._judge_the_end()

    # ------------------------------------------------------------------------------------------------------- the policy

    def _applied(self) -> GenerationPlan:
        """The plan, without the destinations that were refused; each refusal has a reason, and no reason is missed."""
        while True:
            checker = Policy(self.documents)
            not_for = checker.refused_segments()
            refused = {name: why for name, one in checker.destinations.items() if (why := checker.refused(one))}
            written = [
                Written(kind, "default" if key == "consent" else body[key], body)  # type: ignore[arg-type]
                for body in self.documents
                for key, kind in _KINDS.items()
                if key in body and next(iter(body)) == key
            ]
            applied = plan_apply(Catalog(), written, leaves_of=leaves_of, applied_at=1)
            assert applied.generation is not None
            try:
                plan = generation_plan(Catalog().with_definitions(applied.definitions), applied.generation)
            except DefinitionError as error:
                if self._is_of_a_segment(error, not_for):
                    continue
                name = error.where.rpartition("destination ")[2]
                assert not not_for, f"these were to be refused: {not_for}"
                assert name in refused, f"{name} was refused for nothing: {error}"
                self.refused += 1
                self.documents = [one for one in self.documents if one.get("destination") != name]
                continue
            assert not refused and not not_for, f"these were to be refused: {refused} {not_for}"
            return plan

    def _is_of_a_segment(self, error: DefinitionError, not_for: list[str]) -> bool:
        """Whether a segment was refused for what it is for; then it is for nothing in particular any more."""
        if not error.what.startswith("The segment"):
            return False
        name = error.where.rpartition("segment ")[2]
        assert name in not_for, f"{name} was refused for nothing: {error}"
        self.refused_segments += 1
        next(one for one in self.documents if one.get("segment") == name).pop("purposes")
        return True

    # ------------------------------------------------------------------------------------------------------- the person

    def _mark(self, suffix: str = "") -> str:
        self.marks += 1
        return f"zq{self.marks}qz{suffix}"

    def _event(self, message_id: str) -> dict[str, Any]:
        rng = self.rng
        sources = [None, *(each for each in self.documents if "contract" in each)]
        contract = rng.choice(sources)
        names = list(EVENTS)
        if contract is not None and contract["unplanned_events"] == "reject":
            names = list(contract["events"])
        name = rng.choice(names)
        said = ((contract or {}).get("events", {})).get(name)
        properties = {"p1": self._mark(), "p2": self._mark(), "o": {"a": self._mark(), "b": self._mark()}}
        properties["l"] = [{"x": self._mark(), "y": self._mark()}, {"y": self._mark()}]
        traits: dict[str, Any] = {}
        for trait in ("t1", "t2", "email", "d"):
            closed = said is not None and said.get("unplanned_properties") in ("strip", "reject")
            described = (said or {}).get("traits", {}).get("properties")
            if rng.random() < 0.4 and not (closed and described is not None and trait not in described):
                traits[trait] = {"a": self._mark(), "b": self._mark()} if trait == "d" else self._mark()
        if rng.random() < 0.2 and not (said or {}).get("traits"):
            traits["country"] = rng.choice(COUNTRIES)
        context: dict[str, Any] = {"ip": self._mark()}
        if rng.random() < 0.6:
            consent: dict[str, Any] = {one: rng.random() < 0.7 for one in rng.sample(PURPOSES, rng.randrange(3))}
            if rng.random() < 0.2:
                consent["channels"] = {rng.choice(CHANNELS): rng.random() < 0.5}
            if rng.random() < 0.1:
                consent["*"] = rng.random() < 0.4
            context["consent"] = consent
            self.consents |= {one: given for one, given in consent.items() if one != "channels"}
            self.consents |= {f"channel:{one}": given for one, given in consent.get("channels", {}).items()}
        self.traits |= traits
        event = {"event": name, "properties": properties, "traits": traits, "context": context}
        self.sent[message_id] = event
        return event

    # ---------------------------------------------------------------------------------------------------- the judgement

    def _judge(self, message_id: str = "") -> None:
        """What this event has led to, by what the person allows since; without one, what time has."""
        for name, destination in self.policy.destinations.items():
            said = self.world.said.get(f"deliveries.{name}", [])
            new = [msgspec.json.decode(each) for each in said[self.seen.get(name, 0) :]]
            self.seen[name] = len(said)
            allowed = self.policy.may_have_person(destination, self.consents, self.traits)
            for delivery in new:
                self.deliveries += 1
                self._person(name, delivery, allowed)
                self._data(destination, delivery)
            if message_id:
                self._forwarded(destination, message_id, allowed, [each for each in new if each["action"] == "event"])
            if not allowed:
                assert not self.there.get(name), f"{name} was not told to let go of {self.there[name]}"

    def _person(self, name: str, delivery: dict[str, Any], allowed: bool) -> None:
        there = self.there.setdefault(name, set())
        what = delivery.get("segment") or "profile"
        action = delivery["action"]
        mode = self.policy.destinations[name]["mode"]
        if action in ("segment_exited", "profile_deleted"):
            assert what in there or (allowed and mode == "trigger"), f"{name} never had them: {delivery}"
            there.discard(what)
            if action == "profile_deleted":
                self.mirrored[name] = None
            return
        assert allowed, f"they do not allow {name}: {self.consents}: {delivery}"
        if action != "event":
            there.add(what)
        if action == "profile_changed":
            self._mirror(name, delivery["body"])

    def _mirror(self, name: str, body: dict[str, Any]) -> None:
        held = self.mirrored.get(name)
        if held is None or body["change"] == "created":
            held = self.mirrored[name] = {}
        for section, values in body.get("set", {}).items():
            held[section] = {**held.get(section, {}), **values} if isinstance(values, dict) else values
        for section, names in body.get("unset", {}).items():
            held[section] = {key: each for key, each in held.get(section, {}).items() if key not in names}

    def _data(self, destination: dict[str, Any], delivery: dict[str, Any]) -> None:
        """Every name and every value in a delivery is one that the destination may have, in the form it asks for."""
        policy, body = self.policy, delivery["body"]
        sections = {
            **body.get("set", {}),
            **{key: dict.fromkeys(names) for key, names in body.get("unset", {}).items()},
        }
        segments = {*([delivery["segment"]] if "segment" in delivery else []), *sections.get("segments", {})}
        for segment in segments:
            self._may(destination, policy.segment(segment), f"segment {segment}", delivery)
        shown = {**sections.get("computed", {}), **(body.get("traits", {}) if delivery["action"] != "event" else {})}
        for computed in [one for one in shown if one in policy.computed]:
            self._may(destination, policy.computed_trait(computed), f"computed {computed}", delivery)
        if delivery["action"] == "event":
            self._may(destination, policy.event(body["event"]), body["event"], delivery)
        for trait in {*sections.get("traits", {}), *(one for one in shown if one not in policy.computed)}:
            self._may(destination, policy.trait((trait,)), f"traits.{trait}", delivery)
        for pair in delivery["identifiers"]:
            self._may(destination, policy.identifier(pair["namespace"]), pair["namespace"], delivery)
        permitted = self._permitted(destination, delivery)
        text = msgspec.json.encode(delivery).decode()
        marks, hashes = set(_MARK.findall(text)), set(re.findall(r"\b[0-9a-f]{64}\b", text))
        assert marks <= permitted, f"{destination['destination']}: {sorted(marks - permitted)} left in {delivery}"
        assert hashes <= {sha256(each.encode()).hexdigest() for each in permitted}, f"a hash of what? {delivery}"
        self.left += len(marks) + len(hashes)

    def _permitted(self, destination: dict[str, Any], delivery: dict[str, Any]) -> set[str]:
        """The values that may stand in a delivery: of its own event, of the person's traits, of computed traits. With
        those that are hashed, and without those that leave in no other form than masked or not at all."""
        found = {"ada@example.org"}
        if delivery["action"] == "event":
            event = self.sent[delivery["body"]["message_id"]]
            for section in ("properties", "traits", "context"):
                said = self._of(event["event"], section)
                found |= set(self._plain(destination, section, said, event[section]))
            return found
        whole: dict[str, Any] = {}
        for event in self.sent.values():
            for name, value in event["traits"].items():
                whole.setdefault(name, []).append(value)
        for name, values in whole.items():
            for value in values:
                found |= set(self._plain(destination, "traits", self.policy.trait, {name: value}))
        for name, computed in self.policy.computed.items():
            if self.policy.may_have(destination, self.policy.computed_trait(name)) and "of" in computed["compute"]:
                found |= {event["properties"]["p1"] for event in self.sent.values()}
        return found

    def _of(self, event: str, section: str) -> Callable[[Path], Said]:
        return lambda path: self.policy.part(event, section, path)

    def _plain(
        self, destination: dict[str, Any], section: str, said: Callable[[Path], Said], values: Mapping[str, Any]
    ) -> Iterator[str]:
        """The values that leave of a section, before they are hashed."""
        fields = {one: form for one, form in destination.get("fields", {}).items() if form != "sha256"}
        yield from _texts(self.policy.projected({**destination, "fields": fields}, section, said, values))

    def _may(self, destination: dict[str, Any], said: Said, what: str, delivery: dict[str, Any]) -> None:
        assert self.policy.may_have(destination, said), f"{destination['destination']}: {what} {said} in {delivery}"

    def _forwarded(
        self, destination: dict[str, Any], message_id: str, allowed: bool, found: list[dict[str, Any]]
    ) -> None:
        """An event leaves, whole as far as it may, to every destination that takes it and may have it."""
        event, wanted = self.sent[message_id], destination["events"]
        takes = wanted == "*" or event["event"] in wanted
        leaves = takes and allowed and self.policy.may_have(destination, self.policy.event(event["event"]))
        assert len(found) == leaves, f"{destination['destination']}: {event['event']} {allowed} {found}"
        for delivery in found:
            for section in ("properties", "traits", "context"):
                right = self.policy.projected(destination, section, self._of(event["event"], section), event[section])
                assert delivery["body"].get(section, {}) == right, f"{section}: {delivery['body']} and not {right}"
                self.kept += len(list(_texts(event[section]))) - len(list(_texts(right)))

    def _judge_the_end(self) -> None:
        """What an audience that mirrors profiles ends with is the projection of the person."""
        for name, destination in self.policy.destinations.items():
            if not destination["profiles"] or destination["mode"] != "audience":
                continue
            held = self.mirrored.get(name)
            if not self.policy.may_have_person(destination, self.consents, self.traits):
                assert held is None, f"{name} still has {held}"
                continue
            chosen = destination.get("traits")
            traits = {one: each for one, each in self.traits.items() if chosen is None or one in chosen}
            right = self.policy.projected(destination, "traits", self.policy.trait, traits)
            assert (held or {}).get("traits", {}) == right, f"{name} has {held}, and not {right}"
            if destination["profiles"] is True or "segments" in destination["profiles"]:
                members = self.world.profiles()[id_of(PERSON)].segments
                may = {one for one in members if self.policy.may_have(destination, self.policy.segment(one))}
                assert set((held or {}).get("segments", {})) == may


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
