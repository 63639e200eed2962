"""Lets a real client raise a fatal error, as librdkafka's own tests do: no broker is needed for it."""

import ctypes
import sys
from typing import Any

from confluent_kafka import KafkaError, cimpl

# The extension brings librdkafka along, wherever that is installed.
_set_fatal = ctypes.CDLL(cimpl.__file__).rd_kafka_test_fatal_error
_set_fatal.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
# A client of confluent-kafka is a Python object whose first field is librdkafka's handle.
_HEAD_BYTES = sys.getsizeof(object())


def break_for_good(client: Any, code: int = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER) -> None:
    """From here on an idempotent producer sends nothing any more."""
    handle = ctypes.c_void_p.from_address(id(client) + _HEAD_BYTES).value
    assert _set_fatal(handle, code, b"broken by a test") == 0
