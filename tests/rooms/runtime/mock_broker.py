"""librdkafka's own mock of a broker, inside the client: for what a real one does once in hours."""

import ctypes
import sys
from typing import Any

from confluent_kafka import cimpl

PROPERTIES: dict[str, str | int] = {"test.mock.num.brokers": 1, "test.mock.broker.rtt": 300}
"""Make a client have one. Requests are answered after `rtt` ms, so several are on their way at once."""

_PRODUCE = 0
_library = ctypes.CDLL(cimpl.__file__)
_mock_of = _library.rd_kafka_handle_mock_cluster
_mock_of.argtypes, _mock_of.restype = [ctypes.c_void_p], ctypes.c_void_p
_create_topic = _library.rd_kafka_mock_topic_create
_create_topic.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
_push_errors = _library.rd_kafka_mock_push_request_errors_array
_push_errors.argtypes = [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)]
# As in fatal.py: the first field of a client is librdkafka's handle.
_HEAD_BYTES = sys.getsizeof(object())


class MockBroker:
    """The broker inside of a client that was made with PROPERTIES."""

    def __init__(self, client: Any) -> None:
        handle = ctypes.c_void_p.from_address(id(client) + _HEAD_BYTES).value
        self._mock = _mock_of(handle)
        assert self._mock

    def create_topic(self, name: str) -> None:
        """A topic of one partition."""
        assert _create_topic(self._mock, name.encode(), 1, 1) == 0

    def refuse_next_produce(self, code: int) -> None:
        """Answer the next request that writes with an error, and the one behind it as ever."""
        _push_errors(self._mock, _PRODUCE, 1, (ctypes.c_int * 1)(code))
