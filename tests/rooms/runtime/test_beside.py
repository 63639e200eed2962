"""A question asked beside the loop: it is never waited for, answered once, and its failures are not lost."""

import threading
import time
from collections.abc import Callable

import pytest

from pipeline.runtime.kafka.sources import Beside


def answered(beside: Beside) -> bool:
    """Call until there is an answer."""
    for _ in range(2_000):
        answer = beside()
        if answer is not None:
            return answer
        time.sleep(0.001)
    raise AssertionError("no answer within two seconds")


def test_the_loop_goes_on_while_the_question_is_open() -> None:
    may_answer, asked = threading.Event(), []

    def question() -> bool:
        asked.append(1)
        may_answer.wait(10)
        return True

    beside = Beside(question)
    assert [beside() for _ in range(100)] == [None] * 100
    assert len(asked) == 1, "one question at a time"
    (asking,) = [thread for thread in threading.enumerate() if thread.name == "sources"]
    assert not asking.daemon, "the process does not end under a request of the admin client"
    may_answer.set()
    assert answered(beside) is True
    assert len(asked) == 1, "the answer is that of the open question"
    assert answered(beside) is True
    assert len(asked) == 2, "an answer is given once; the next call asks anew"


def test_each_question_has_its_own_answer() -> None:
    answers = iter([True, False, True])
    beside = Beside(lambda: next(answers))
    assert [answered(beside) for _ in range(3)] == [True, False, True]


def test_what_somebody_else_had_asked_before_is_no_answer() -> None:
    may_answer, answers = threading.Event(), iter([True, False])

    def question() -> bool:
        may_answer.wait(10)
        return next(answers)

    beside = Beside(question)
    assert beside() is None
    may_answer.set()
    (asking,) = [thread for thread in threading.enumerate() if thread.name == "sources"]
    asking.join()
    assert answered(beside.anew()) is False


def failing() -> Callable[[], bool]:
    """A question that fails once."""
    answers = iter([ValueError("no"), True])

    def question() -> bool:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    return question


def test_what_the_question_raises_reaches_the_loop_once() -> None:
    beside = Beside(failing())
    with pytest.raises(ValueError, match="no"):
        answered(beside)
    assert answered(beside) is True
