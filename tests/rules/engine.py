"""The rules of the engine (DESIGN, section 7), each with how it is taken out and the tests that then fail.

docs/operations/faults.md shows the table. `python -m tests.rules` takes them out one at a time; the suite only checks
that each change still finds its text, and that the tests are there.
"""

from typing import NamedTuple

from tests.simulation.fault_list import Fault

RUNTIME = "tests/rooms/runtime/"
ORDER, RESTORE = RUNTIME + "test_commit_order.py::", RUNTIME + "test_restore.py::"
ROLES, STATE, POISON = RUNTIME + "test_roles.py::", RUNTIME + "test_state.py::", RUNTIME + "test_poison.py::"
STEPS, CLIENTS = RUNTIME + "test_ten_steps.py::", RUNTIME + "test_kafka_clients.py::"
LOST, WAITING = RUNTIME + "test_lost.py::", RUNTIME + "test_waiting.py::"
RESTING, GATHER = RUNTIME + "test_rest.py::", RUNTIME + "test_gather.py::"
STORES, BROKERS = "tests/contracts/test_stores.py::", "tests/contracts/test_brokers.py::"


class Rule(NamedTuple):
    """`says` as the table has it; `fault`: the change that takes the rule out; `tests`: each of them must then fail."""

    says: str
    fault: Fault
    tests: tuple[str, ...]


def _rule(says: str, module: str, old: str, new: str, *tests: str) -> Rule:
    return Rule(says, Fault(says, f"pipeline.runtime.{module}", ((old, new),)), tests)


RULES: tuple[Rule, ...] = (
    # the commit order
    _rule(
        "only records of open tasks are processed",
        "stepping",
        "            if task is None:\n                continue\n",
        "            if task is None:\n                task = next(iter(owners.values()))\n",
        STEPS + "test_records_of_partitions_that_are_not_open_are_dropped",
    ),
    _rule(
        "the membership is taken before the records are processed",
        "worker",
        "            self._commit(involved, membership)\n",
        "            self._commit(involved, self._consumer.membership())\n",
        STEPS + "test_the_membership_is_that_of_before_the_first_step",
    ),
    _rule(
        "a membership without a generation is refused",
        "worker",
        '        if membership.generation < 0:\n            self._drop("the membership',
        '        if membership.generation < -9:\n            self._drop("the membership',
        ORDER + "test_a_membership_without_a_generation_is_refused",
    ),
    _rule(
        "what a step has put, the next one reads",
        "overlay",
        "            self._dirty.append(entry)\n        entry.value = value\n        entry.data = None\n",
        "            self._dirty.append(entry)\n            entry.value = value\n        entry.data = None\n",
        STATE + "test_equals_a_dictionary",
    ),
    _rule(
        "each dirty key is written to the changelog once a transaction",
        "task",
        "        self.changelog_records = [*self.changes.values, (",
        "        self.changelog_records = [*self.changes.values, *self.changes.values, (",
        STEPS + "test_a_key_is_in_the_changelog_once_a_transaction",
    ),
    _rule(
        "everything is in the log before the offsets are sent",
        "worker",
        '        highest = self._patiently("flush", lambda: producer.flush(timeout_s))\n',
        "        highest: dict[Partition, int] = {}\n",
        STEPS + "test_the_ten_steps_in_their_order",
    ),
    _rule(
        "the store is written after the commit",
        "worker",
        '        reach("commit_in_flight")\n',
        '        reach("commit_in_flight")\n        for task in involved:\n'
        '            task.write(highest.get((changelog or "", task.number)), self._adapters.clock())\n',
        STEPS + "test_the_ten_steps_in_their_order",
        ORDER + "test_any_other_error_stops_the_worker_for_good",
    ),
    _rule(
        "a store is one atomic write: values, time index, positions",
        "rocksdb.store",
        "        options.set_atomic_flush(True)\n",
        "        options.set_atomic_flush(False)\n",
        STORES + "test_killed_it_is_at_one_position_in_all_of_its_parts",
    ),
    _rule(
        "input positions are in the state, and in the changelog with every transaction",
        "task",
        "(POSITIONS_KEY, _encode_positions(inputs))]",
        "(POSITIONS_KEY, _encode_positions({}))]",
        ORDER + "test_a_crash_in_mid_restore_leaves_a_store_that_can_go_on",
    ),
    # errors
    _rule(
        "retriable: the same call again",
        "worker",
        "            except Retriable as unanswered:\n                self.beats += 1\n",
        "            except Retriable as unanswered:\n                raise WorkerStopped(what) from unanswered\n",
        ORDER + "test_case_48_a_call_whose_answer_never_came_is_repeated",
    ),
    _rule(
        "abortable: abort",
        "worker",
        '            self._patiently("abort", lambda: self._producer.abort(self.settings.call_timeout_s))\n',
        "",
        ORDER + "test_an_abortable_error_aborts_drops_and_rewinds",
    ),
    _rule(
        "abortable: drop the overlay, and all that the batch had decoded",
        "task",
        "            self.task_state.drop()\n",
        "            self.task_state._dirty.clear()\n",
        ORDER + "test_an_abortable_error_aborts_drops_and_rewinds",
    ),
    _rule(
        "abortable: rewind",
        "worker",
        "        self._consumer.start(again)\n",
        "",
        ORDER + "test_an_abortable_error_aborts_drops_and_rewinds",
    ),
    _rule(
        "anything else ends the worker, for good",
        "worker",
        "        except RuntimeFault as fault:\n            self._stopped = str(fault)\n",
        "        except RuntimeFault as fault:\n",
        ORDER + "test_any_other_error_stops_the_worker_for_good",
    ),
    _rule(
        "fatal, abortable, retriable are told apart as the client tells them",
        "kafka.errors",
        "    if told.txn_requires_abort():\n        return Abortable(text)\n",
        "",
        CLIENTS + "test_an_error_is_what_the_client_says_it_is",
    ),
    _rule(
        "an exception in a rebalance callback ends the worker",
        "worker",
        '                raise WorkerStopped(\n                    f"{self.role.name}: partitions',
        '                print(\n                    f"{self.role.name}: partitions',
        ROLES + "test_a_skewed_assignment_is_refused",
    ),
    _rule(
        "a call that hangs ends the process",
        "watchdog",
        "                os._exit(EXIT_CODE)\n",
        "                return\n",
        ROLES + "test_a_call_that_hangs_ends_the_process",
    ),
    _rule(
        "sending the offsets has a limit of its own",
        "worker",
        "        self._stuck_s = self.settings.offsets_stuck_s\n",
        "",
        ROLES + "test_sending_the_offsets_has_a_limit_of_its_own",
    ),
    # the restore
    _rule(
        "a former self is fenced before the group is joined",
        "worker",
        '        self._patiently("init transactions", lambda: self._producer.init(self.settings.call_timeout_s))\n'
        '        self._topics.check(self._patiently("topics", self._topics.counts))\n'
        '        self._patiently("topic ids", self._topics.ask_ids)\n'
        "        self._consumer.subscribe(self.role.inputs, self)\n",
        '        self._topics.check(self._patiently("topics", self._topics.counts))\n'
        '        self._patiently("topic ids", self._topics.ask_ids)\n'
        "        self._consumer.subscribe(self.role.inputs, self)\n"
        '        self._patiently("init transactions", lambda: self._producer.init(self.settings.call_timeout_s))\n',
        STEPS + "test_a_start_fences_first",
    ),
    _rule(
        "the target is asked for after the committed positions have answered",
        "restore",
        "restoration.committed = self._adapters.consumer.committed(task.partitions, _ANSWER_TIMEOUT_S)\n",
        "restoration.committed = dict.fromkeys(task.partitions)\n",
        RESTORE + "test_case_49_a_zombie_that_commits_late_is_waited_for",
    ),
    _rule(
        "the target is the high watermark of an uncommitted view",
        "kafka.consumer",
        "        self._watermarks = Consumer(config.reader(role, committed=False))\n",
        "        self._watermarks = Consumer(config.reader(role, committed=True))\n",
        BROKERS + "test_flush_tells_the_highest_offset_and_a_replay_passes_control_records",
    ),
    _rule(
        "control and aborted records at the end are passed",
        "kafka.config",
        '            "enable.partition.eof": True,\n',
        '            "enable.partition.eof": False,\n',
        BROKERS + "test_flush_tells_the_highest_offset_and_a_replay_passes_control_records",
    ),
    _rule(
        "no progress for a minute is loud",
        "restore",
        "            if silent_ms > self._settings.give_up_ms:\n",
        "            if now < 0:\n",
        RESTORE + "test_case_51_a_foreign_open_transaction_on_the_changelog_is_loud_in_the_end",
    ),
    _rule(
        "a transaction of ours that hangs on the changelog is ended",
        "restore",
        "                self._touch(restoration)\n",
        "                pass\n",
        RESTORE + "test_case_51_a_transaction_of_its_own_that_its_coordinator_has_lost_is_ended",
    ),
    _rule(
        "positions in a transaction of ours that hangs are set free",
        "restore",
        "lambda: producer.send_offsets(dict.fromkeys(partitions, 0), membership, timeout_s)",
        "lambda: None",
        RESTORE + "test_case_51_positions_in_a_transaction_that_its_coordinator_has_lost_are_set_free",
    ),
    _rule(
        "what hangs in the outputs is aborted where the positions do not cover it",
        "lost",
        "        touch(self._adapters.producer, aborted, self._settings.call_timeout_s)\n",
        "",
        LOST + "test_each_input_comes_out_once_whatever_part_of_the_transaction_got_its_marker",
        "tests/kafka/test_lost_markers.py::"
        "test_case_51_each_raw_record_comes_out_once_whatever_of_its_transaction_hangs",
    ),
    _rule(
        "what hangs in the outputs is committed where the positions cover it",
        "lost",
        "        self._keep(told, kept)\n",
        "",
        LOST + "test_each_input_comes_out_once_whatever_part_of_the_transaction_got_its_marker",
    ),
    _rule(
        "inputs whose outputs are there already are passed over",
        "stepping",
        "            elif not task.passed or record[:3] not in task.passed:\n",
        "            else:\n",
        LOST + "test_each_input_comes_out_once_whatever_part_of_the_transaction_got_its_marker",
    ),
    _rule(
        "with state: what hangs in the outputs is aborted where the changelog has nothing as late",
        "lost",
        "        touch(self._adapters.producer, aborted, timeout_s)\n",
        "",
        LOST + "test_what_a_transaction_wrote_that_was_never_complete_is_aborted",
    ),
    _rule(
        "with state: it is not aborted where the changelog has",
        "lost",
        "            (kept if covered else aborted).append(at)\n",
        "            aborted.append(at)\n",
        LOST + "test_outputs_that_hang_and_are_covered_by_the_changelog_are_not_aborted",
    ),
    _rule(
        "what hangs on the changelog is committed where the group is just there",
        "restore",
        "                kept = self._covered(restoration)\n",
        "                kept = None\n",
        LOST + "test_what_hangs_in_the_changelog_and_is_covered_by_the_positions_is_committed",
    ),
    _rule(
        "positions that hung are those of a changelog that got its marker",
        "restore",
        "            elif restoration.freed and of_state is not None",
        "            elif False and of_state is not None",
        LOST + "test_positions_that_hung_are_those_of_a_changelog_that_got_its_marker",
    ),
    _rule(
        "a store that has a transaction which was lost is restored anew",
        "restore",
        "        if self._is_ahead(restoration):\n",
        "        if False:\n",
        LOST + "test_a_store_that_has_a_lost_transaction_is_restored_anew",
    ),
    _rule(
        "after an abort the group is where the worker takes it to be",
        "worker",
        "lambda: refuse_lost(self._consumer, self.tasks.values())",
        "lambda: None",
        LOST + "test_an_abort_that_ends_a_lost_transaction_too_is_noticed",
    ),
    _rule(
        "a store older than half of the tombstones' retention is wiped",
        "restore",
        "    if meta is not None and now_ms - meta.written_ms > tombstone_retention_ms // 2:\n",
        "    if meta is not None and now_ms - meta.written_ms > tombstone_retention_ms * 9:\n",
        RESTORE + "test_case_61_a_store_older_than_the_tombstones_is_wiped",
    ),
    _rule(
        "only a complete restore makes a store younger",
        "restore",
        "restoration.began_ms if complete else None)",
        "restoration.began_ms)",
        RESTORE + "test_a_partial_restore_does_not_make_a_store_younger",
    ),
    _rule(
        "a store outside of its changelog is loud",
        "restore",
        "        _refuse_outside(self._changelog_name, task.number, meta.changelog, low, high)\n",
        "",
        RESTORE + "test_a_truncated_or_recreated_changelog_is_loud",
    ),
    _rule(
        "a store that was kept for another partition is loud",
        "restore",
        "        _refuse_copied(self._changelog_name, task.number, meta)\n",
        "",
        RESTORE + "test_a_store_that_was_copied_from_another_partition_is_loud",
    ),
    _rule(
        "the state's positions and the group's agree, or it is loud",
        "restore",
        '                known = f"is at {of_state}" if has_state else "is empty"\n',
        "                positions[partition] = of_group or 0\n                continue\n",
        RESTORE + "test_a_state_lost_on_both_sides_is_loud",
    ),
    _rule(
        "positions that the group has forgotten are taken from the state",
        "restore",
        "            elif of_group is None and of_state is not None:\n",
        "            elif of_group is None and of_state == -1:\n",
        RESTORE + "test_expired_group_offsets_are_taken_from_the_state",
    ),
    _rule(
        "partitions that are ready do not wait for those which are not",
        "worker",
        "        records = self._rest.take(time.perf_counter())\n",
        "        if self._restorer.waiting:\n            return 0\n"
        "        records = self._rest.take(time.perf_counter())\n",
        RESTORE + "test_a_ready_partition_does_not_wait_for_one_that_is_restoring",
    ),
    # topics and the group
    _rule(
        "a source outside of its log is loud",
        "kafka.config",
        '            "auto.offset.reset": "error",\n        }\n\n    def transactional_ids',
        '            "auto.offset.reset": "latest",\n        }\n\n    def transactional_ids',
        CLIENTS + "test_the_consumer_is_set_up_as_it_was_measured",
    ),
    _rule(
        "a slot has one transactional id, for ever",
        "kafka.config",
        '        first = f"{self.prefix}{role}-{self.slot}"\n',
        '        first = f"{self.prefix}{role}-{id(self)}"\n',
        CLIENTS + "test_the_producer_is_set_up_as_it_was_measured",
    ),
    _rule(
        "a slot is a static member of a classic group, under the range assignor",
        "kafka.config",
        '            "partition.assignment.strategy": "range",\n',
        '            "partition.assignment.strategy": "cooperative-sticky",\n',
        CLIENTS + "test_the_consumer_is_set_up_as_it_was_measured",
    ),
    _rule(
        "an assignment without the co-partitioned inputs is refused",
        "worker",
        "            if missing:\n",
        "            if missing and False:\n",
        ROLES + "test_a_skewed_assignment_is_refused",
    ),
    _rule(
        "inputs and changelog have one partition count",
        "topics",
        "        if role.changelog and len({counts[topic] for topic in self._names}) > 1:\n",
        "        if role.changelog and not counts:\n",
        ROLES + "test_inputs_with_different_partition_counts_are_refused",
    ),
    _rule(
        "a topic that was made again is noticed at the start",
        "restore",
        "        return bool(present and former_id and present != former_id)\n",
        "        return False\n",
        RESTORE + "test_case_59_a_source_made_again_and_grown_past_the_old_position_is_loud",
        RESTORE + "test_case_59_a_changelog_made_again_and_grown_past_the_old_position_is_loud",
        RESTORE + "test_case_59_a_role_without_state_reads_a_source_made_again_from_its_beginning",
    ),
    _rule(
        "and under a running worker",
        "topics",
        "            if self.ids.get(topic, id) != id:\n",
        "            if self.ids.get(topic, id) is None:\n",
        RESTORE + "test_case_59_it_is_noticed_under_a_running_worker",
    ),
    # poison
    _rule(
        "poison that others wrote is put aside",
        "worker",
        "                if index is None or records[index].topic not in self._tolerant:\n",
        "                if True:\n",
        POISON + "test_case_55_poison_in_the_middle_is_put_aside_and_leaves_no_trace",
    ),
    _rule(
        "a broker that does not answer is nobody's poison",
        "poison",
        "    if isinstance(error, BrokerError):\n",
        "    if False:\n",
        POISON + "test_a_broker_that_does_not_answer_is_nobodys_poison",
    ),
    _rule(
        "poison that we wrote stops the worker",
        "worker",
        "                if index is None or records[index].topic not in self._tolerant:\n",
        "                if index is None:\n",
        POISON + "test_poison_that_we_wrote_stops_the_worker",
    ),
    _rule(
        "a batch that raises at its end is halved",
        "rest",
        "        count = max(1, self.suspects // 2) if self.suspects else len(records)\n",
        "        count = 1 if self.suspects else len(records)\n",
        POISON + "test_a_flood_of_poison_that_shows_at_the_end_of_each_batch_is_halved",
    ),
    _rule(
        "a batch of many poisoned records is cut",
        "poison",
        "STEPPED_AGAIN = 256\n",
        "STEPPED_AGAIN = 10**9\n",
        POISON + "test_a_flood_of_poison_is_not_stepped_over_and_over",
    ),
    # long work
    _rule(
        "a rebalance in the midst of long work undoes the batch",
        "worker",
        "        if self._tasks_given != tasks_given:\n            return False\n",
        "",
        WAITING + "test_a_rebalance_while_long_work_is_stepped_undoes_the_batch",
    ),
    _rule(
        "what such a batch has handed over already is aborted",
        "worker",
        "                    self._undo_begun()\n                    return None\n",
        "                    return None\n",
        WAITING + "test_a_rebalance_while_long_work_is_stepped_undoes_the_batch",
    ),
    _rule(
        "so is it when something in the batch makes the stage raise",
        "worker",
        "                self._undo_begun()\n                self._forget_batch()\n",
        "                self._forget_batch()\n",
        WAITING + "test_poison_behind_what_was_handed_over_is_put_aside",
    ),
    _rule(
        "what is older is done before anything is consumed in the midst of a batch",
        "rest",
        "        return not self._records and not self.suspects\n",
        "        return True\n",
        WAITING + "test_rebalances_faults_and_poison_in_the_midst_of_long_work",
        GATHER + "test_rebalances_faults_and_poison_meanwhile",
    ),
    _rule(
        "what stands behind long work that rests waits with it",
        "rest",
        "        begin = {record[1]: -1 for record in self._left}\n",
        "        begin: dict[int, int] = {}\n",
        RESTING + "test_while_it_rests_what_stands_behind_it_in_its_partition_waits_with_it",
        WAITING + "test_rebalances_faults_and_poison_in_the_midst_of_long_work",
    ),
    _rule(
        "a rest that ends while records are consumed does not turn them round",
        "worker",
        "        if waits_s is not None:\n            self._rest.leave_long(records)\n",
        "        if waits_s:\n            self._rest.leave_long(records)\n",
        RESTING + "test_a_rest_that_ends_while_records_are_consumed_does_not_turn_them_round",
    ),
    # beside the loop
    _rule(
        "what went through the loop-back topics is deleted",
        "upkeep",
        "            self._adapters.admin.delete_records(below)\n",
        "            self._trimmed.clear()\n",
        ORDER + "test_echoes_come_back_and_committed_ones_are_deleted",
    ),
    _rule(
        "decoded state stays in a bounded cache",
        "overlay",
        "        if len(self._recent) > self._half_objects or self._recent_bytes > self._half_bytes:\n",
        "        if len(self._recent) > 10**9:\n",
        STATE + "test_the_cache_is_bounded_by_objects_and_by_bytes",
    ),
)
