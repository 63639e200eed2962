"""The faults that are put into accounts on purpose, beside those of fault_list.py."""

from tests.simulation.fault_kinds import Fault

ACCOUNT_FAULTS: tuple[Fault, ...] = (
    # who belongs where
    Fault(
        "a_late_word_of_who_belongs_counts",
        "pipeline.accounts.rules",
        (("(time, not joined) > (there[0], not there[1])", "True"),),
    ),
    Fault(
        "of_two_words_at_once_joining_wins",
        "pipeline.profile.fragment",
        (("(time == there[0] and joined >= there[1])", "(time == there[0] and joined <= there[1])"),),
    ),
    Fault(
        "free_mail_is_a_company",
        "pipeline.accounts.rules",
        ((" and domain not in rules.free_mail and ", " and "),),
    ),
    Fault(
        "an_account_has_several_names",
        "pipeline.accounts.rules",
        (("            name = rules.name_of(named)\n", "            name = named\n"),),
    ),
    # what people tell their accounts
    Fault(
        "accounts_hear_of_no_event",
        "pipeline.unify.folding",
        (("            news.acted(task, profile, moment, event, generation)\n", "            pass\n"),),
    ),
    Fault(
        "accounts_do_not_hear_what_came_with_a_merge",
        "pipeline.unify.news",
        (("        news.join = mine\n", "        pass\n"),),
    ),
    Fault(
        "accounts_do_not_hear_who_left_a_hidden_segment",
        "pipeline.unify.news",
        (("        news.left.append(segment)\n", "        pass\n"),),
    ),
    Fault(
        "whoever_leaves_does_not_say_so",
        "pipeline.unify.belonging",
        (
            (
                "        _send(task, profile, name, profile.moment, gone=True)\n        regarded",
                "        regarded",
            ),
        ),
    ),
    Fault(
        "whom_an_ended_profile_owed_is_forgotten",
        "pipeline.unify.news",
        (("        there += [one for one in origins if one not in there]\n", "        pass\n"),),
    ),
    # what accounts make of it
    Fault(
        "a_merged_person_counts_twice",
        "pipeline.unify.account",
        (
            (
                "        if moving is not None and (moving[0] != person_key or not message.whole):\n"
                "            change.remove(task, moving[0])\n",
                "        pass\n",
            ),
        ),
    ),
    Fault(
        "whoever_leaves_takes_nothing_along",
        "pipeline.unify.account",
        (
            (
                "self._before[place], self._number[place] = person.leaves, -1",
                "self._number[place] = -1",
            ),
        ),
    ),
    Fault(
        "the_tree_is_folded_at_its_root_only",
        "pipeline.unify.together",
        (("        if self._split:\n            for node", "        if False:\n            for node"),),
        seeds=(15556,),
    ),
    Fault(
        "what_is_lost_is_not_joined_anew_below_the_root",
        "pipeline.unify.together",
        (("                    anew.setdefault(node, set()).update(lost)\n", "                    pass\n"),),
        seeds=(2854,),
    ),
    Fault(
        "account_does_not_settle_before_it_changes",
        "pipeline.unify.account",
        (
            (
                "    hand = _at_hand(task, key, identifier)\n    settle(task, hand)\n    return hand\n",
                "    hand = _at_hand(task, key, identifier)\n    return hand\n",
            ),
        ),
    ),
    Fault(
        "account_has_no_deadline",
        "pipeline.unify.account",
        (
            (
                "        account.wake = max(deadline, task.clock + 1) if deadline < FOREVER else 0\n",
                "        account.wake = 0\n",
            ),
        ),
    ),
    Fault(
        "an_account_without_anybody_stays",
        "pipeline.unify.account",
        (("    exists = account.named or people > 0\n", "    exists = account.published or people > 0\n"),),
    ),
    Fault(
        "a_named_account_ends_with_its_people",
        "pipeline.unify.account",
        (("    exists = account.named or people > 0\n", "    exists = people > 0\n"),),
    ),
    Fault(
        "newest_people_do_not_hear_of_their_account",
        "pipeline.unify.account",
        (("    if message.whole and is_new and hand.account.revision:\n", "    if False:\n"),),
    ),
    Fault(
        "accounts_do_not_answer_what_is_asked_anew",
        "pipeline.unify.account",
        (("    if same and account.revision and not asks_more:\n", "    if same and account.revision:\n"),),
        engine="rules",
    ),
    Fault(
        "what_waited_for_an_answer_waits_on",
        "pipeline.unify.belonging",
        (("    if known.heard > before and profile", "    if False and profile"),),
    ),
    # what the world is told
    Fault(
        "account_traits_by_arrival",
        "pipeline.unify.account_publish",
        (
            (
                "if write(traits, name, at, value)]",
                "if write(traits, name, max(at, traits.get(name, (at,))[0]), value)]",
            ),
        ),
    ),
    Fault(
        "sequences_of_accounts_begin_again",
        "pipeline.unify.account_publish",
        (
            (
                "    hand.account.published = False\n    hand.standing = None\n",
                "    hand.account.published = False\n    hand.account.pairs = {}\n    hand.standing = None\n",
            ),
        ),
    ),
    Fault(
        "an_alert_is_repeated_too_soon",
        "pipeline.unify.account_publish",
        (
            (
                "        if last is not None and change.decided_at - last < alert.again_after_ms:\n",
                "        if False:\n",
            ),
        ),
    ),
    # while definitions change
    Fault(
        "a_backfill_alerts",
        "pipeline.unify.account_publish",
        (("    if entered and moment.cause not in QUIET_CAUSES:\n", "    if entered:\n"),),
        "rules",
    ),
    Fault(
        "group_events_name_by_the_rules_that_are_evaluated",
        "pipeline.unify.route",
        (("    rules = task.plans(task.meta.marked).accounts\n", "    rules = task.plan.accounts\n"),),
        "rules",
    ),
    Fault(
        "a_paused_segment_of_accounts_answers_by_its_members",
        "pipeline.unify.account",
        (
            (
                "    members = hand.standing.members if hand.standing is not None else set[str]()\n",
                "    members = {one for one, pair in account.pairs.items() if pair.member}\n",
            ),
        ),
        "rules",
        seeds=(300720,),
    ),
)
