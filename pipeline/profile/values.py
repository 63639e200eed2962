"""When two values of JSON are one."""

from typing import Any


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of one type all the way down: 1, 1.0 and True are equal to Python, and
    different values here. Whoever folds changes would else miss that one became the other."""
    if one != other or one.__class__ is not other.__class__:
        return False
    if one.__class__ is list:
        return all(same_value(left, right) for left, right in zip(one, other, strict=True))
    if one.__class__ is dict:
        return all(same_value(value, other[name]) for name, value in one.items())
    return True
