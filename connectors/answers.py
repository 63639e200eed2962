"""What the answer of an HTTP destination means.

answer                                       outcome
2xx                                          delivered
408, 425, 429, 5xx, time-out, no connection  retry, after Retry-After where it is given
3xx, 401, 403, 404, 405, 407, 410            retry: the set-up is wrong, and somebody can mend it
any other 4xx                                rejected: this very delivery
"""

import re
import time
from collections.abc import Collection
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpcore

from connectors.base import LONGEST_RETRY_AFTER_MS, Outcome, delivered, rejected, retry
from connectors.outbound import AddressRefusedError, Answer, Client

_MENDABLE = frozenset({401, 403, 404, 405, 407, 408, 410, 421, 425, 429})


def retry_after_ms(text: str | None, now_s: float) -> int | None:
    """A Retry-After header in milliseconds: seconds or a date, at most a day; None if absent or senseless."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait_ms = int(text[:10]) * 1000
    else:
        try:
            moment = parsedate_to_datetime(text)
            if moment.tzinfo is None:  # the form of asctime, which has no zone and means UTC
                moment = moment.replace(tzinfo=UTC)
            wait_ms = int((moment.timestamp() - now_s) * 1000)
        except (ValueError, OverflowError):
            return None
    return max(0, min(wait_ms, LONGEST_RETRY_AFTER_MS))


def shown(answer: Answer) -> str:
    """The status, and the beginning of what was said, for people."""
    said = "".join(c for c in answer.body[:200].decode("utf-8", "replace") if c.isprintable()).strip()
    return f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"


def ask(
    client: Client,
    method: str,
    url: str,
    headers: dict[str, str],
    content: bytes,
    delivered_on: Collection[int] = (),
    rejected_on: Collection[int] = (),
    refused_by: re.Pattern[bytes] | None = None,
) -> Outcome:
    """Send one request, and say what came of it. Raises nothing: what is not answered is tried again. `refused_by`:
    what, in the body of a success, says that it was none."""
    try:
        answer = client.request(method, url, headers, content)
    except AddressRefusedError as error:
        return retry(str(error))
    except httpcore.TimeoutException as error:
        return retry(f"no answer in time ({type(error).__name__})")
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        return retry(f"no connection, or one that broke ({type(error).__name__}): {error}")
    outcome = outcome_of(answer, time.time(), delivered_on, rejected_on)
    if refused_by is not None and outcome.status == "delivered" and refused_by.search(answer.body):
        return rejected(shown(answer))
    return outcome


def outcome_of(
    answer: Answer, now_s: float, delivered_on: Collection[int] = (), rejected_on: Collection[int] = ()
) -> Outcome:
    """What an answer means: the table at the head of this file. `delivered_on`, if given, stands in place of 2xx;
    `rejected_on` stands above everything."""
    status = answer.status
    if status not in rejected_on and (status in delivered_on if delivered_on else 200 <= status < 300):
        return delivered()
    if 300 <= status < 400 and status not in rejected_on:
        return retry(f"HTTP {status}: redirects are not followed; put the final address into the definition")
    detail = shown(answer)
    if status not in rejected_on and (status >= 500 or status < 300 or status in _MENDABLE):
        return retry(detail, retry_after_ms(answer.headers.get("retry-after"), now_s))
    return rejected(detail)
