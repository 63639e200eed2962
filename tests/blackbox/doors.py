"""The same questions at the other doors: the API, `headwater explain`, `headwater test`."""

import socket
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.blackbox.history import instants
from tests.blackbox.judge import BEHIND_MS, Verdict, alike
from tests.blackbox.people import Identifier, Known, Sent, facts_of
from tests.blackbox.people import World as Truth
from tests.blackbox.traffic import iso
from tests.blackbox.world import World, now_ms

TESTED = ["silent", "eight_months", "straight", "cast_three", "big_spender", "abandoned", "deep", "hot", "by_people"]


def ask(world: World, truth: Truth, known: Known, ids: dict[Identifier, str], verdict: Verdict) -> None:
    """Ask the doors; what they say differently is a finding."""
    _api(world, truth, ids, verdict)
    _explain(world, truth, ids, verdict)
    _test(world, known, verdict)


def _api(world: World, truth: Truth, ids: dict[Identifier, str], verdict: Verdict) -> None:
    scopes = [word for scope in ("profiles:read", "segments:read", "events:read") for word in ("--scope", scope)]
    token = world.deployment.command("tokens", "create", "blackbox", *scopes).stdout.split()[-1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world.deployment.start("api", HEADWATER_API__PORT=str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as client:
        world.deployment.wait_until(lambda: _is_ready(client), "the API is ready")
        table = world.deployment.table("profiles")
        for group in truth.people:
            for identifier in group:
                answer = client.get(f"/v1/profiles/{quote(identifier, safe='')}")
                verdict.counts["asked of the API"] += 1
                profile = table.get(ids.get(identifier, ""))
                if profile is None:
                    if answer.status_code != 404:
                        verdict.find(f"the API knows {identifier}: {answer.text[:300]}")
                elif answer.status_code != 200:
                    verdict.find(f"the API says {answer.status_code} of {identifier}: {answer.text[:300]}")
                elif not alike(answer.json().get("traits", {}), profile.get("traits", {})) or not alike(
                    answer.json()["totals"], profile["totals"]
                ):
                    verdict.find(f"the API says of {identifier}: {answer.text[:600]}, and not {profile}")
        for identifier in known_erased(truth, world.known()):
            answer = client.get(f"/v1/profiles/{quote(identifier, safe='')}")
            if answer.status_code != 404:
                verdict.find(f"the API knows {identifier}, who was erased: {answer.status_code} {answer.text[:300]}")
        for segment in ("everyone", "that_night", "named_all"):
            found: set[str] = set()
            after = ""
            while True:
                asked = {"limit": "7"} | ({"after": after} if after else {})
                page = client.get(f"/v1/segments/{segment}/members", params=asked)
                rows = page.json()["members"]
                found |= {row["profile_id"] for row in rows}
                if not page.json().get("next"):
                    break
                after = page.json()["next"]
            if found != (members := world.deployment.members(segment)):
                verdict.find(f"the API's members of {segment} are {len(found)}; they differ by {found ^ members}")


def known_erased(truth: Truth, known: Known) -> set[Identifier]:
    """Those who were erased and are nobody."""
    return set(known.erased) - {each for group in truth.people for each in group}


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def _explain(world: World, truth: Truth, ids: dict[Identifier, str], verdict: Verdict) -> None:
    rules = world.rules()
    people = sorted((min(group), facts) for group, facts in truth.people.items() if facts.events)
    for _ in range(4):
        identifier, facts = world.random.choice(people)
        segment = world.random.choice([each for each in rules.names("person") if each != "no_one"])
        before = now_ms()
        said = world.deployment.command("explain", identifier, segment).stdout
        if any(instants(rules, segment, facts, before - BEHIND_MS, now_ms())):
            continue
        shown = "✓" in said.split(f"segment {segment}")[0]
        verdict.counts["explained"] += 1
        if shown != rules.is_member(segment, facts, before):
            verdict.find(f"explain says otherwise of {identifier} {ids[identifier]} in {segment}: {said}")


def _test(world: World, known: Known, verdict: Verdict) -> None:
    """`headwater test`: those with one identifier, the same records, to the millisecond at one instant."""
    folder = Path(world.deployment.folder)
    alone = {person.identifiers[0] for person in world.traffic.people if person.loner}
    sent = [each for each in world.history if isinstance(each, Sent) and each.identifiers and each.route in alone]
    events = folder / "events.jsonl"
    events.write_bytes(b"".join(each.value + b"\n" for each in sent if each.expected == "used"))
    at = now_ms()
    definitions = folder / "tested.yaml"
    definitions.write_text((Path(__file__).parent / "rules.yaml").read_text())
    rules = world.first_rules()
    facts_of_route = {route: facts_of("", [each for each in known.events if each.route == route]) for route in alone}
    for segment in TESTED:
        members = [
            route
            for route in sorted(alone)
            if facts_of_route[route].events and rules.is_member(segment, facts_of_route[route], at)
        ]
        expected = folder / f"{segment}.expected"
        expected.write_text("".join(f"{each}\n" for each in members) or "nobody\n")
        words = ["test", segment, "--definitions", str(definitions), "--events", str(events), "--at", iso(at)]
        verdict.counts["tested"] += 1
        try:
            world.deployment.command(*words, "--expect", str(expected) if members else "nobody")
        except AssertionError as failed:
            verdict.find(f"headwater test {segment}: {str(failed)[:1_500]}")
