"""Random documents of a workspace: contracts with labels and purposes at any depth, rules, destinations, consent."""

import random
from typing import Any

Document = dict[str, Any]
PURPOSES, LABELS, CHANNELS = ("ads", "care", "risk"), ("pii", "sensitive"), ("email", "phone")
EVENTS = ("Ordered", "Registered", "Visited", "Group Joined")
OF_ACCOUNTS = "Group"
PARTS, TRAITS = ("p1", "p2", "o.a", "o.b", "l.*.x", "l.*.y"), ("t1", "t2", "email", "d.a", "d.b")
COUNTRIES = ("DE", "US", "JP")


def policy(rng: random.Random) -> list[Document]:
    """The documents of one workspace."""
    contracts = [_contract(rng, number) for number in range(rng.choice((0, 1, 1, 2, 3)))]
    computed = [_computed(rng, f"c{number}") for number in range(2)]
    people: list[Document] = []
    accounts: list[Document] = []
    for number in range(rng.randrange(1, 5)):
        names = [one["segment"] for one in people]
        if rng.random() < 0.3:
            of_accounts = [one["segment"] for one in accounts]
            accounts.append(
                {"segment": f"a{number}", "entity": "account", "when": _of_account(rng, names, of_accounts)}
            )
        people.append({"segment": f"s{number}", "when": _rule(rng, names, accounts=[a["segment"] for a in accounts])})
    segments = [*people, *accounts]
    for each in segments:
        if rng.random() < 0.25:
            each["purposes"] = _some(rng, PURPOSES, 0.5)
    alerts: list[Document] = [{"alert": f"t{number}", "enters": one["segment"]} for number, one in enumerate(accounts)]
    for each in alerts:
        if rng.random() < 0.5:
            each["traits"] = rng.sample(("p1", "o", "p2"), 2)
    destinations = [_destination(rng, f"d{number}", segments, alerts) for number in range(rng.randrange(1, 5))]
    consent = [_consent(rng)] if rng.random() < 0.5 else []
    return [*contracts, *computed, *segments, *alerts, *destinations, *consent]


def _some(rng: random.Random, among: tuple[str, ...], chance: float = 0.3) -> list[str]:
    return [one for one in among if rng.random() < chance]


def _annotated(rng: random.Random, schema: Document) -> Document:
    if rng.random() < 0.25:
        schema["labels"] = _some(rng, LABELS, 0.5)
    if rng.random() < 0.25:
        schema["purposes"] = _some(rng, PURPOSES, 0.6)
    return schema


def _described(rng: random.Random, paths: tuple[str, ...]) -> Document:
    """`properties` of a schema that speaks of some of the paths, and may say something of each step."""
    found: Document = {}
    for path in paths:
        if rng.random() < 0.5:
            continue
        fields = found
        steps = path.split(".")
        for number, step in enumerate(steps):
            if step == "*":
                continue
            schema = fields.setdefault(step, _annotated(rng, {}))
            if number + 1 < len(steps):
                if steps[number + 1] == "*":
                    schema = schema.setdefault("items", _annotated(rng, {}) if rng.random() < 0.3 else {})
                fields = schema.setdefault("properties", {})
    return found


def _contract(rng: random.Random, number: int) -> Document:
    events: Document = {}
    for name in rng.sample((*EVENTS, OF_ACCOUNTS), rng.randrange(1, 4)):
        event: Document = {"properties": _described(rng, PARTS)}
        if rng.random() < 0.5:
            event["traits"] = {"type": "object", "properties": _described(rng, TRAITS)}
        if rng.random() < 0.4:
            event["purposes"] = _some(rng, PURPOSES, 0.6)
        if rng.random() < 0.2:
            event["labels"] = _some(rng, LABELS)
        if rng.random() < 0.5:
            event["unplanned_properties"] = rng.choice(("allow", "flag", "strip", "reject"))
        events[name] = event
    contract: Document = {"contract": f"k{number}", "sources": [f"source-{number}"], "events": events}
    contract["unplanned_events"] = rng.choice(("allow", "flag", "reject", "reject"))
    if rng.random() < 0.4:
        contract["purposes"] = _some(rng, PURPOSES, 0.6)
    return contract


def _computed(rng: random.Random, name: str) -> Document:
    event = rng.choice(EVENTS)
    if rng.random() < 0.5:
        return {"computed": name, "compute": {"function": "count", "event": event}}
    return {"computed": name, "compute": {"function": "last", "event": event, "of": "properties.p1"}}


def _rule(rng: random.Random, others: list[str], depth: int = 0, accounts: list[str] | None = None) -> Document:
    """A rule about people. `accounts`: the segments of accounts it may ask for; None: it asks nothing of accounts."""
    kinds = ["performed"] * 3 + ["trait", "consent", "computed", "score", "sequence"]
    kinds += (["in_segment"] if others else []) + (["account"] if accounts is not None else [])
    if depth < 2:
        kinds += ["all", "any", "not"]
    match rng.choice(kinds):
        case "all" | "any" as word:
            return {word: [_rule(rng, others, depth + 1, accounts) for _ in range(2)]}
        case "not":
            return {"not": _rule(rng, others, depth + 1, accounts)}
        case "account":
            asked: Document = {}
            if accounts and rng.random() < 0.6:
                asked["in_segment"] = rng.choice(accounts)
            if not asked or rng.random() < 0.4:
                asked["trait"] = {rng.choice(("p1", "o", "o.a")): {"exists": True}}
            return {"account": asked}
        case "trait":
            return {"trait": {rng.choice(("t1", "d", "d.a", "email")): {"exists": rng.random() < 0.7}}}
        case "consent":
            return {"consent": rng.choice(PURPOSES)}
        case "computed":
            return {"computed": {"c0": {"exists": True}}}
        case "in_segment":
            return {"in_segment": rng.choice(others)}
        case "score" | "sequence" as word:
            return _over_events(rng, word)
    return _performed(rng)


def _of_account(rng: random.Random, people: list[str], others: list[str]) -> Document:
    """A rule about accounts."""
    match rng.choice(["trait", "members", "members", "performed", "sequence"] + (["in_segment"] if others else [])):
        case "trait":
            return {"trait": {rng.choice(("p1", "o", "o.a")): {"exists": True}}}
        case "members":
            return {"members": {"match": _rule(rng, people, 1), "at_least": 1}}
        case "in_segment":
            return {"in_segment": rng.choice(others)}
        case "sequence":
            return _over_events(rng, "sequence")
    return _performed(rng)


def _over_events(rng: random.Random, word: str) -> Document:
    first, second = rng.sample(EVENTS, 2)
    if word == "score":
        weights: list[Document] = [{"event": first, "weight": 2}, {"event": second, "weight": 1}]
        if rng.random() < 0.4:
            weights[0]["where"] = {"properties.p2": {"exists": True}}
        return {"score": {"events": weights, "half_life": "7d", "at_least": 1}}
    steps: list[Document] = [{"event": first}, {"event": second, "within": "1d"}]
    if rng.random() < 0.3:
        steps[1] = {"not": {"event": second}, "within": "1d"}
    sequence: Document = {"steps": steps}
    if rng.random() < 0.3:
        sequence["by"] = "properties.p1"
    return {"sequence": sequence}


def _performed(rng: random.Random) -> Document:
    selected: Document = {"event": rng.choice((*EVENTS, "*", [EVENTS[0], EVENTS[2]]))}
    if rng.random() < 0.4:
        selected["where"] = {rng.choice(("properties.p1", "properties.o", "properties.o.a")): {"exists": True}}
    if rng.random() < 0.2:
        selected["distinct"] = {"of": "properties.p2", "at_least": 1}
    return {"performed": selected}


def _destination(rng: random.Random, name: str, segments: list[Document], alerts: list[Document]) -> Document:
    known = [one["segment"] for one in segments]
    found: Document = {"destination": name, "kind": "file", "path": f"/tmp/{name}.jsonl"}
    found["mode"] = rng.choice(("audience", "audience", "trigger"))
    found["segments"] = rng.choice(("*", [], rng.sample(known, rng.randrange(len(known) + 1))))
    found["events"] = rng.choice(("*", [], rng.sample(EVENTS, 2)))
    if alerts and rng.random() < 0.3:
        found["alerts"] = rng.choice(("*", [rng.choice(alerts)["alert"]]))
    found["profiles"] = rng.choice((True, False, ["traits"], ["identifiers", "traits", "segments"]))
    if rng.random() < 0.5:
        found["traits"] = rng.sample(("t1", "t2", "email", "d", "c0", "c1"), 3)
    found["purposes"] = _some(rng, PURPOSES, 0.4)
    found["labels"] = _some(rng, LABELS, 0.6)
    if rng.random() < 0.3:
        found["channel"] = rng.choice(CHANNELS)
    if rng.random() < 0.5:
        addresses = ("traits.email", "traits.d", "traits.d.a", "identifiers.email", "properties.p1", "properties.l.*.x")
        found["fields"] = {one: rng.choice(("sha256", "mask", "drop")) for one in rng.sample(addresses, 2)}
        if "traits.d" in found["fields"]:
            found["fields"].pop("traits.d.a", None)
    return found


def _consent(rng: random.Random) -> Document:
    bases = ("consent", "consent", "legitimate_interests", "contract")
    regions = {name: {"countries": [country]} for name, country in zip(("eu", "us"), COUNTRIES, strict=False)}
    for region in regions.values():
        region["granted"] = _some(rng, PURPOSES, 0.5)
    return {
        "consent": "default",
        "purposes": {one: rng.choice(bases) for one in PURPOSES},
        "regions": regions if rng.random() < 0.7 else {},
    }
