"""A replay of a world into a second workspace, by docs/replay.md: copied, compared, followed, and then switched to.

The copier and the roles of the copy are killed on the way; people are erased and links taken back while it follows,
and after the switch; producers go on while it is under way. What the copy holds is held against the same reference as
the first workspace: as if its definitions had been there from the start. After the switch a subscriber has read the old
`segment-changes` to their end, and the new ones from the places that the switch tells.
"""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from pipeline.runtime.kafka.rest import STAGES, AtRest
from tests.blackbox.judge import Verdict, in_order, judge
from tests.blackbox.traffic import first_link
from tests.blackbox.world import ROLES, World
from tests.kafka.deployment import Deployment

WAIT_S = 180.0


class CopyDeployment(Deployment):
    """A workspace whose sources are those of another one."""

    def environment(self, slot: str = "0", **more: str) -> dict[str, str]:
        return super().environment(slot, HEADWATER_SOURCES=",".join(self.settings.sources), **more)


def replay(world: World, closing: ExitStack) -> Verdict:
    """Make a copy of the world, judge it, and switch to it: from then on the world is played in it, and its roles end
    with `closing`. What was found in the copy."""
    old = world.deployment
    new = closing.enter_context(_begun(world))
    followed, last = world.still
    for name, slot in ROLES[1:]:
        world.copy_roles[name, slot] = new.start(name, slot=slot)
    for wait_s in (1.5, 3.0, 5.0, 8.0) if world.size.ahead < 60 else (1.5, 3.0):
        copier = _copier(new, "--ahead", str(world.size.ahead))
        time.sleep(wait_s)
        copier.kill()
        copier.wait()
        world.kill_in(new, world.copy_roles)
    copier = _copier(new)
    try:
        world.burst(world.size.events // 2, 0)
        world.idle()
        world.erase(followed)
        for link in first_link(world.traffic.people, world.known().edges)[-1:]:
            world.decide(link)
        world.idle()
        wait_for(new, AtRest(new.settings), "the copy has taken in everything")
        wait_for(old, lambda: not _left(new), "everything is copied")
        world.tell("the copy follows")
        world.move(new, "copy")
        verdict = judge(world)
        _compared(old, new, verdict)
        _switch(world, old, new)
    finally:
        if copier.poll() is None:
            copier.terminate()
        copier.wait(30)
    world.erase(last)
    for link in first_link(world.traffic.people, world.known().edges)[:1]:
        world.decide(link)
    world.come_back([last])
    world.burst(world.size.events // 2, world.size.kills // 2)
    wait_for(new, rests(new), "the new workspace has taken in everything")
    return verdict


def rests(new: Deployment) -> AtRest:
    """Whether a workspace has taken in everything, its sources included."""
    return AtRest(new.settings, {"ingest": new.settings.sources, **STAGES})


def wait_for(deployment: Deployment, true: Any, what: str) -> None:
    deployment.wait_until(true, what, WAIT_S)
    time.sleep(2)  # and what a tick does in the end


def _begun(world: World) -> Deployment:
    old = world.deployment
    prefix, folder = f"copy.{old.settings.prefix}", old.folder / "copy"
    words = ("--partitions", str(old.settings.partitions + 1), "--state-dir", str(folder))
    old.command("replay", "begin", prefix, *words, "--file", str(old.folder / "copy.yaml"))
    changed = {
        "prefix": prefix,
        "partitions": old.settings.partitions + 1,
        "state_dir": folder,
        "sources": (f"/{old.settings.topic('raw')}",),
    }
    return CopyDeployment(old.settings.model_copy(update=changed), old.folder)


def _copier(new: Deployment, *words: str) -> "subprocess.Popen[bytes]":
    with (new.folder / "copier.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "replay", "run", *words],
            env=new.environment(),
            stdout=log,
            stderr=log,
        )


def _left(new: Deployment) -> bool:
    """Whether events are still to be copied: more than what says once a second that nothing is behind."""
    said = new.command("replay", "status").stdout
    return int(said.split("decisions; ")[1].split(" ")[0].replace(",", "")) > 3 * new.settings.partitions


def _compared(old: Deployment, new: Deployment, verdict: Verdict) -> None:
    """`headwater replay compare` ends with 1 where somebody has come back, under another id; else it finds nothing but
    what time makes of it."""
    try:
        said = old.command("replay", "compare", old.settings.prefix, new.settings.prefix).stdout
    except AssertionError as failed:
        said = str(failed)
    for word in ("other identifiers", "other totals"):
        if word in said:
            verdict.find(f"compare says {word}: {said[:2_000]}")


def _switch(world: World, old: Deployment, new: Deployment) -> None:
    """The switch, while producers go on."""
    slot = ROLES[0]
    world.copy_roles[slot] = new.start(slot[0], slot=slot[1])
    new.start("privacy")
    with (new.folder / "switch.log").open("wb") as log:
        switching = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "replay", "switch", "--yes", "--wait", "120"],
            env=new.environment(),
            stdout=log,
            stderr=log,
        )
    while switching.poll() is None:
        world.burst(20, 0)
        time.sleep(0.3)
    assert switching.returncode == 0, (new.folder / "switch.log").read_text()
    for role in world.roles.values():
        if role.process.poll() is None:
            role.stop()
    world.dead = old.values("dead-letters")
    world.before = in_order(old.read("segment-changes"))
    told = [json.loads(record.value) for record in old.read("workspace") if record.value and record.key == b"successor"]
    world.starts = told[-1]["starts"]["segment-changes"]
    world.roles = world.copy_roles
    world.move(new, "switched")
    world.tell("switched")
