"""How many hops an event takes in steady state: `python -m tests.simulation.hops --people 300`.

The people of `people.py`, all with an account, live through the real stages; counted is the last third of their events.
One hop is that of every event to its route; a Forward to the holder is another.
"""

import argparse

from pipeline.records import Forward, decode_links_record, encode
from tests.rooms.unify.harness import KEYS, World
from tests.simulation.people import Mix, people
from tests.simulation.score import ingested


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    world = World((), given.seed)
    events = [event for _, event in ingested(people(given.seed, given.people, Mix(with_account=1.0)))]
    steady = len(events) * 2 // 3
    read: list[int] = []
    for number, event in enumerate(events):
        if number == steady:
            world.work()
            read = [len(partition) for partition in world._log("links")]
        world.write("events", KEYS.actor(event.identifiers[0]), encode(event))
        if number % 50 == 0:
            world.work()
    world.work()
    forwards = [
        message.event
        for partition, start in zip(world._log("links"), read, strict=True)
        for _, value in partition[start:]
        if isinstance(message := decode_links_record(value), Forward)
    ]
    for who, logged_in in (("everybody", False), ("who is logged in", True)):
        all_of_them = sum(not logged_in or one.identifiers[0].startswith("user_id:") for one in events[steady:])
        twice = sum(not logged_in or one.identifiers[0].startswith("user_id:") for one in forwards)
        print(f"{who:<17} {all_of_them:>6} events, {1 + twice / all_of_them:.3f} hops each")


if __name__ == "__main__":
    main()
