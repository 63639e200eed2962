"""From librdkafka's errors to the runtime's four."""

from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.runtime.errors import Abortable, Fatal, Retriable, RuntimeFault

# What passes by itself; librdkafka goes on trying and tells it only for information.
PASSING = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_COORD,
        KafkaError._RESOLVE,
        KafkaError._DESTROY_BROKER,  # a node that died is let go of, with what it was being asked
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)

# What a call of a client may raise. That it was fenced comes as an exception of whatever is called next; where that
# call also has reports of delivery to hand over, Python only notices that one is pending: a SystemError.
CLIENT_ERRORS = (KafkaException, SystemError)


def refusal(error: KafkaError | None, message: Message) -> KafkaError | None:
    """Why a delivery report is no acknowledgement; None if it is one.

    Where a request failed and the one behind it was acknowledged, librdkafka takes the first for written as well, and
    reports no error: a broker lets no sequence have a gap. It does where the producer is new to the partition, as after
    a start: there any first sequence will do. A report of what was really acknowledged has an offset.
    """
    if error is None and message.offset() is None:
        return KafkaError(KafkaError._FAIL, "it is not known whether the record was written")
    return error


def fault_of(error: KafkaException | SystemError, what: str) -> RuntimeFault:
    """Which of the runtime's errors a call of the transactional producer met."""
    if isinstance(error, SystemError):
        return Fatal(f"{what}: {error.__cause__ or error}")
    told: KafkaError = error.args[0]
    text = f"{what}: {told.str()} ({told.name()})"
    if told.fatal():
        return Fatal(text)
    if told.txn_requires_abort():
        return Abortable(text)
    if told.retriable():
        return Retriable(text)
    return Fatal(text)


def told_by(error: KafkaException | SystemError) -> KafkaError:
    """What the client says, of one of `CLIENT_ERRORS`."""
    said = error.__cause__ if isinstance(error, SystemError) else error
    return said.args[0] if isinstance(said, KafkaException) else KafkaError(KafkaError._FATAL, str(error))


def passing_or_fatal(error: KafkaException | KafkaError, what: str) -> RuntimeFault:
    """Which of them a request outside of a transaction met: Retriable if it passes, else Fatal."""
    told: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    text = f"{what}: {told.str()} ({told.name()})"
    return Retriable(text) if not told.fatal() and (told.code() in PASSING or told.retriable()) else Fatal(text)
