"""The faults that are put in on purpose: what is broken, where, and how."""

from tests.simulation.fault_kinds import Fault

FAULTS: tuple[Fault, ...] = (
    # who is who
    Fault(
        "edges_resolved_in_any_order",
        "pipeline.identity.repair",
        (
            (
                "    edges.sort()\n",
                "",
            ),
        ),
    ),
    Fault(
        "first_seen_does_not_order_edges",
        "pipeline.identity.resolution",
        (
            (
                "return one[0], other[0], first, one[1], other[1]",
                "return one[0], other[0], 0, one[1], other[1]",
            ),
        ),
    ),
    Fault(
        "latest_login_does_not_win",
        "pipeline.identity.resolution",
        (
            (
                "            first = -first\n",
                "            first = first + 0\n",
            ),
        ),
    ),
    Fault(
        "quarantine_one_too_early",
        "pipeline.identity.resolution",
        (
            (
                "if values > most and",
                "if values >= most and",
            ),
        ),
    ),
    Fault(
        "limit_is_one_too_wide",
        "pipeline.identity.resolution",
        (
            (
                "> self.capacities[namespace] and namespace in other",
                "> self.capacities[namespace] + 1 and namespace in other",
            ),
        ),
    ),
    Fault(
        "unlink_spares_evidence_of_its_instant",
        "pipeline.identity.graph",
        (
            (
                "return edge.last > self.cut(a, b, edge)",
                "return edge.last >= self.cut(a, b, edge)",
            ),
        ),
    ),
    Fault(
        "relink_does_nothing",
        "pipeline.identity.decisions",
        (
            (
                "            edge.cut = -1\n",
                "            edge.cut += 0\n",
            ),
        ),
    ),
    Fault(
        "unlink_does_not_ask_the_routes",
        "pipeline.identity.decisions",
        (
            (
                "            turn.forget(route, a, b, cut)\n        edge.routes = []",
                "            pass\n        edge.routes = []",
            ),
        ),
    ),
    Fault(
        "other_rules_resolve_nobody_anew",
        "pipeline.identity.stage",
        (
            (
                "        turn.graph.meta.generation = message.generation\n"
                "        self._go_on(turn, message.generation, 0)\n",
                "        turn.graph.meta.generation = message.generation\n",
            ),
        ),
        "rules",
    ),
    Fault(
        "group_is_named_by_hash_alone",
        "pipeline.identity.repair",
        (
            (
                "return (graph.node(one).first, hashed) < (graph.node(other).first, other_hashed)",
                "return hashed < other_hashed",
            ),
        ),
    ),
    Fault(
        "earlier_evidence_does_not_rename",
        "pipeline.identity.repair",
        (
            (
                "    if name == text or not stronger(graph, text, name):\n",
                "    if name == text or stronger(graph, text, text) is False:\n",
            ),
        ),
    ),
    # the route
    Fault(
        "evidence_is_not_told_again_when_earlier",
        "pipeline.unify.evidence",
        (
            (
                "                known[0] = time\n                _tell(task, actor, a, b, known[0], known[1])\n",
                "                known[0] = time\n",
            ),
        ),
    ),
    Fault(
        "forget_is_not_answered",
        "pipeline.unify.evidence",
        (
            (
                "        _tell(task, actor, message.a, message.b, known[0], known[1])\n",
                "        pass\n",
            ),
        ),
    ),
    Fault(
        "route_does_not_keep_last_received",
        "pipeline.unify.evidence",
        (
            (
                "            if received > known[1]:\n                known[1] = received\n",
                "",
            ),
        ),
    ),
    Fault(
        "duplicates_are_folded",
        "pipeline.unify.dedup",
        (
            (
                "        if -WITHIN_MS <= received - there <= WITHIN_MS:\n",
                "        if False:\n",
            ),
        ),
    ),
    Fault(
        "duplicates_for_ever",
        "pipeline.unify.dedup",
        (
            (
                "        if -WITHIN_MS <= received - there <= WITHIN_MS:\n",
                "        if True:\n",
            ),
        ),
    ),
    Fault(
        "spilled_message_ids_are_forgotten",
        "pipeline.unify.dedup",
        (
            (
                "    if actor.pages[1] and _is_near_in_pages(",
                "    if False and _is_near_in_pages(",
            ),
        ),
    ),
    Fault(
        "event_folded_at_route_and_holder",
        "pipeline.unify.route",
        (
            (
                "    else:\n        task.clock = task.as_of(task.clock, actor)\n",
                "    if True:\n        task.clock = task.as_of(task.clock, actor)\n",
            ),
        ),
    ),
    Fault(
        "assign_does_not_point",
        "pipeline.unify.route",
        (
            (
                "    actor.announced = True\n    _point(task, actor)\n    if former != message.name:",
                "    actor.announced = True\n    if former != message.name:",
            ),
        ),
    ),
    # the holder
    Fault(
        "late_absorb_is_not_passed_on",
        "pipeline.unify.transfer",
        (
            (
                "    if gone and given is not None:\n",
                "    if gone and given is None:\n",
            ),
        ),
    ),
    Fault(
        "absorb_ignores_the_epoch",
        "pipeline.unify.transfer",
        (
            (
                "    return given[1] > epoch\n",
                "    return True\n",
            ),
        ),
    ),
    Fault(
        "given_away_is_not_remembered",
        "pipeline.unify.transfer",
        (
            (
                "        group.given[name] = (message.to, message.epoch, message.to_erased)\n",
                "",
            ),
        ),
    ),
    Fault(
        "recalled_fragment_stays_too",
        "pipeline.unify.transfer",
        (
            (
                "    if part is not None:\n        task.put_part(key, actor, name, None)\n    if not message.to:",
                "    if not message.to:",
            ),
        ),
    ),
    Fault(
        "empty_fragment_is_not_sent",
        "pipeline.unify.transfer",
        (
            (
                "    states: list[bytes | None] = [None]\n",
                "    states: list[bytes | None] = []\n",
            ),
        ),
    ),
    Fault(
        "only_the_first_piece_is_sent",
        "pipeline.unify.transfer",
        (
            (
                "        states = list(pieces(part, PIECE_BYTES))\n",
                "        states = list(pieces(part, PIECE_BYTES))[:1]\n",
            ),
        ),
    ),
    Fault(
        "event_folded_twice_at_a_lone_holder",
        "pipeline.unify.folding",
        (
            (
                "    if part is not joined:\n        fold(part,",
                "    if True:\n        fold(part,",
            ),
        ),
    ),
    Fault(
        "no_settling_before_the_fold",
        "pipeline.unify.folding",
        (
            (
                "    if task.may_be_due(actor) or actor.generation != task.generation:\n"
                "        settling.settle(task, profile)\n",
                "",
            ),
        ),
    ),
    Fault(
        "merged_profile_does_not_leave",
        "pipeline.unify.holder",
        (
            (
                "        publish.segment_change(task, profile, segment, False, moment, moved_to=into)\n",
                "        pass\n",
            ),
        ),
    ),
    Fault(
        "sequences_begin_again",
        "pipeline.unify.holder",
        (
            (
                "    actor.published = actor.held = False\n",
                "    actor.published = actor.held = False\n    actor.pairs = {}\n",
            ),
        ),
    ),
    Fault(
        "links_shown_stay_with_the_former_holder",
        "pipeline.unify.transfer",
        (("    unfollowed.leave(task, profile, name, message.epoch)\n", ""),),
    ),
    # time
    Fault(
        "first_tick_is_the_last",
        "pipeline.unify.stage",
        (
            (
                "            task.change_meta().tick = 0\n",
                "            pass\n",
            ),
        ),
    ),
    Fault(
        "links_do_not_carry_time",
        "pipeline.unify.stage",
        (
            (
                "        task.see(message.clock)\n        kind = type(message)",
                "        kind = type(message)",
            ),
        ),
    ),
    Fault(
        "deadline_is_not_indexed",
        "pipeline.unify.task",
        (
            (
                "            actor.wake = max(deadline, self.clock + 1) if deadline < FOREVER else 0\n",
                "            actor.wake = 0\n",
            ),
        ),
    ),
    Fault(
        "time_index_is_as_early_as_what_is_at_hand",
        "pipeline.unify.task",
        (
            (
                "            profile.plan.segments.tighten(standing, profile, self.clock)\n",
                "            pass\n",
            ),
        ),
        "light",
    ),
    # segments
    Fault(
        "window_is_closed",
        "pipeline.segments.windows",
        (
            (
                "return now_ms - self.span_ms + 1, now_ms + 1",
                "return now_ms - self.span_ms, now_ms + 1",
            ),
        ),
    ),
    Fault(
        "exit_one_millisecond_late",
        "pipeline.segments.atoms",
        (
            (
                "leaves_ms = decisive_ms + self._rolling_ms",
                "leaves_ms = decisive_ms + self._rolling_ms + 1",
            ),
        ),
    ),
    Fault(
        "late_event_is_not_sorted_in",
        "pipeline.segments.leaves",
        (
            (
                "            if time_ms >= state[-1]:\n"
                "                state.append(time_ms)\n"
                "            else:\n"
                "                insort(state, time_ms)\n"
                "            return state\n",
                "            state.append(time_ms)\n            return state\n",
            ),
        ),
        "pairs",
    ),
    Fault(
        "leaves_of_a_merge_are_not_joined",
        "pipeline.segments.plan",
        (
            (
                "_copy(spec.leaf, state) if other is None else spec.leaf.join(awakened(state), awakened(other))",
                "_copy(spec.leaf, state)",
            ),
        ),
    ),
    # profiles
    Fault(
        "last_trait_to_arrive_wins",
        "pipeline.profile.fragment",
        (
            (
                "        if time < there[0]:\n            return False\n        if time ==",
                "        if time ==",
            ),
        ),
    ),
    Fault(
        "trait_ties_by_arrival",
        "pipeline.profile.fragment",
        (
            (
                "        if time == there[0] and _canonical(value) <= _canonical(there[1]):\n"
                "            return False\n",
                "",
            ),
        ),
    ),
    Fault(
        "totals_of_a_merge_are_not_added",
        "pipeline.profile.fragment",
        (
            (
                "            total[0] += count\n",
                "            total[0] = max(total[0], count)\n",
            ),
        ),
    ),
    # the engine
    Fault(
        "overlay_survives_an_abort",
        "pipeline.runtime.task",
        (
            (
                "            self.task_state.drop()\n",
                "            pass\n",
            ),
        ),
        "real",
    ),
    Fault(
        "stage_keeps_its_cache_over_an_abort",
        "pipeline.runtime.task",
        (
            (
                "            self.task_state.drop()\n        self.stage.forget()\n",
                "            self.task_state.drop()\n",
            ),
        ),
        "real",
    ),
    Fault(
        "store_written_before_the_commit",
        "pipeline.runtime.worker",
        (
            (
                '        reach("commit_in_flight")\n',
                "        for task in involved:\n"
                '            task.write(highest.get((changelog or "", task.number)), self._adapters.clock())\n'
                '        reach("commit_in_flight")\n',
            ),
        ),
        "real",
    ),
    Fault(
        "changelog_lacks_a_key",
        "pipeline.runtime.task",
        (
            (
                "[*self.changes.values, (POSITIONS_KEY",
                "[*list(self.changes.values)[1:], (POSITIONS_KEY",
            ),
        ),
        "real",
    ),
    Fault(
        "restore_lacks_a_record",
        "pipeline.runtime.restore",
        (
            (
                "records = by_partition.get(number, [])",
                "records = by_partition.get(number, [])[1:]",
            ),
        ),
        "real",
    ),
    Fault(
        "batch_is_not_rewound",
        "pipeline.runtime.worker",
        (
            (
                "        self._consumer.start(again)\n",
                "",
            ),
        ),
        "real",
    ),
)
