"""An attack from outside: whoever wrote it had read DESIGN and the user documentation, and none of the code it judges.

A seed makes people, their nasty events, and what happens to them meanwhile: rules that change, links that are taken
back, erasures, roles that are killed. All of it goes through the doors that users have (topics, the command line), on
a real broker. What comes out is compared with a naive reference of the documentation, which has no streams, no state
and no increments.

    values.py      values, comparisons, instants, by docs/segments.md
    language.py    what a rule says of the facts of one profile at one instant, by docs/segments.md and docs/accounts.md
    people.py      who is who, and what a profile is, by DESIGN sections 4 and 5
    history.py     when somebody who has one identifier enters and leaves, by DESIGN sections 3 and 6
    traffic.py     a seed's events
    collected.py   the HTTP door: what is posted to the collector, and what then stands in `raw`
    world.py       the world they are played in: roles, kills, commands
    judge.py       what came out, beside the reference
    copied.py      the world replayed into a second workspace, and the switch to it
    doors.py       the same questions at the API, at `headwater explain` and at `headwater test`
"""
