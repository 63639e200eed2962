"""Will this customer buy again within 90 days? Trained on the CDNOW purchases, judged on later ones, scored live.

    python examples/repeat_purchase/model.py train            trains, reports beside baselines, keeps model.json
    python examples/repeat_purchase/model.py score            follows the workspace and sends Score events

Features are as of an instant, by the pipeline's own stages; what is to be predicted lies behind it, and the judging
lies behind all of that. The model is kept as its coefficients: a pickle would run whatever stands in it.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from pipeline.activation import ActivationPlan
from pipeline.definitions.segments import compile_definitions
from pipeline.features.past import Happened, profiles_at
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.ingest import Emit, RawEvent, decode, ingest
from pipeline.plans import GenerationPlan
from pipeline.records import encode
from pipeline.runtime.ports import Record
from pipeline.sample import raw_events

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "deploy" / "sample" / "cdnow.csv.gz"
LAST_DAY = date(1998, 6, 30)
DAY_MS = 86_400_000
HORIZON_DAYS = 90
VALID_DAYS = 30
MODEL, VERSION = "repeat_purchase", "1"
NAMES = ("orders", "orders_90d", "spent", "spent_90d", "largest_order", "days_since_first", "days_since_last")


def features(computed: dict[str, Any], at: int) -> list[float]:
    """The inputs of the model, from a profile's computed traits as of `at`."""
    first, last = computed.get("first_order", at), computed.get("last_order", at)
    return [
        math.log1p(computed.get("orders", 0)),
        math.log1p(computed.get("orders_90d", 0)),
        math.log1p(max(0.0, computed.get("spent", 0))),
        math.log1p(max(0.0, computed.get("spent_90d", 0))),
        math.log1p(max(0.0, computed.get("largest_order", 0) or 0)),
        (at - first) / DAY_MS / 100,
        (at - last) / DAY_MS / 100,
    ]


# ------------------------------------------------------------------------------------------------------------ training


def history() -> tuple[list[Happened], list[tuple[str, int]]]:
    """The purchases as clean events, and as (customer, time)."""
    keys, rules = Keys(b"an example"), builtin_rules()
    happened, bought = [], []
    for line, (_, value) in enumerate(raw_events(DATA, LAST_DAY + timedelta(days=1))):
        raw = decode(value)
        assert isinstance(raw, RawEvent)
        stamped = json.loads(value)["timestamp"]
        received = int(datetime.fromisoformat(stamped).timestamp() * 1000)
        outcome = ingest(Record("sample", 0, line, None, value), received, rules)
        assert isinstance(outcome, Emit)
        event = outcome.event
        happened.append(Happened(event.received, "events", keys.actor(event.identifiers[0]), encode(event)))
        bought.append((event.identifiers[0].partition(":")[2], event.time))
    return happened, bought


def sample(happened: list[Happened], bought: list[tuple[str, int]], at: int) -> tuple[list[list[float]], list[int]]:
    """Of each customer known at `at`: the features as of then, and whether they bought in the 90 days after it."""
    definitions = list(yaml.safe_load_all((HERE / "definitions.yaml").read_text()))
    computed = [(one, 1) for one in definitions if "computed" in one]
    plan = GenerationPlan(0, builtin_rules(), compile_definitions([], computed), ActivationPlan())
    documents = profiles_at(at, happened, Keys(b"an example"), plan, expire_after_days=36_500)
    buyers = {customer for customer, when in bought if at < when <= at + HORIZON_DAYS * DAY_MS}
    found, truth = [], []
    for document in documents.values():
        [customer] = [pair.value for pair in document.identifiers if pair.namespace == "user_id"]
        found.append(features(document.computed, at))
        truth.append(int(customer in buyers))
    return found, truth


def ms(day: date) -> int:
    """The first instant of a day, UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def train() -> None:
    """Train on what was known on 1997-10-01, judge on what was known on 1998-01-01 and came after it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
    from sklearn.preprocessing import StandardScaler

    happened, bought = history()
    learned, judged = ms(date(1997, 10, 1)), ms(date(1998, 1, 1))
    assert learned + HORIZON_DAYS * DAY_MS <= judged
    inputs, truth = sample(happened, bought, learned)
    scaler = StandardScaler().fit(inputs)
    model = LogisticRegression(max_iter=1_000).fit(scaler.transform(inputs), truth)
    later, later_truth = sample(happened, bought, judged)
    predicted = model.predict_proba(scaler.transform(later))[:, 1]

    # Baselines need no model: everybody as likely as in the past, and whoever bought last is the likeliest.
    share = sum(truth) / len(truth)
    recent = [sum(truth[n] for n in range(len(truth)) if (inputs[n][1] > 0) is known) for known in (False, True)]
    sizes = [sum((row[1] > 0) is known for row in inputs) for known in (False, True)]
    rates = [recent[n] / sizes[n] if sizes[n] else share for n in (0, 1)]
    rows = [
        ("logistic regression", list(predicted)),
        ("bought in the last 90 days", [rates[row[1] > 0] for row in later]),
        ("most recent first", [1 / (1 + row[6]) for row in later]),
        ("everybody alike", [share] * len(later)),
    ]
    print(f"trained on {len(truth):,} customers as of 1997-10-01, {share:.1%} of whom bought again by 1997-12-30")
    print(f"judged on {len(later):,} as of 1998-01-01, {sum(later_truth) / len(later):.1%} of whom did by 1998-04-01\n")
    print(f"{'':28}{'AUC':>8}{'log loss':>10}{'Brier':>8}")
    for name, scores in rows:
        line = f"{name:28}{roc_auc_score(later_truth, scores):8.3f}"
        if name != "most recent first":
            line += f"{log_loss(later_truth, scores):10.3f}{brier_score_loss(later_truth, scores):8.3f}"
        print(line)
    kept = {
        "names": NAMES,
        "mean": list(scaler.mean_),
        "scale": list(scaler.scale_),
        "weights": list(model.coef_[0]),
        "intercept": float(model.intercept_[0]),
    }
    (HERE / "model.json").write_text(json.dumps(kept, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------------------- scoring


def score_of(model: dict[str, Any], row: list[float]) -> float:
    """The probability, from the coefficients."""
    parts = zip(row, model["mean"], model["scale"], model["weights"], strict=True)
    total = model["intercept"] + sum((value - mean) / scale * weight for value, mean, scale, weight in parts)
    return round(1 / (1 + math.exp(-total)), 4)


def changed_profiles(settings: Any) -> Iterator[dict[str, Any]]:
    """The profiles whose orders have just changed, as they are now."""
    from pipeline.runtime.kafka.doors import TopicReader

    documents: dict[str, dict[str, Any]] = {}
    with TopicReader(settings, ["profiles"], from_end=True) as reader:
        while True:
            for record in reader.read(timeout_s=0.5):
                if record.value is None or record.key is None:
                    continue
                document = json.loads(record.value)
                before = documents.get(document["profile_id"], {}).get("computed", {}).get("orders")
                documents[document["profile_id"]] = document
                if document.get("computed", {}).get("orders") != before:
                    yield document


def scores(settings: Any) -> Iterator[tuple[bytes, bytes]]:
    """A Score event for each change of a profile's orders, as (key, value) of a raw record."""
    model = json.loads((HERE / "model.json").read_text())
    for document in changed_profiles(settings):
        user = next((one["value"] for one in document["identifiers"] if one["namespace"] == "user_id"), None)
        if user is None:
            continue
        now = int(time.time() * 1000)
        value = score_of(model, features(document["computed"], now))
        valid = datetime.fromtimestamp(now / 1000 + VALID_DAYS * 86_400, UTC).isoformat()
        event = {
            "type": "track",
            "event": "Score",
            "messageId": f"{MODEL}-{user}-{now}",
            "userId": user,
            "properties": {"model": MODEL, "version": VERSION, "value": value, "valid_until": valid},
        }
        print(f"{user}: {value}", flush=True)
        yield user.encode(), json.dumps(event).encode()


def score() -> None:
    """Answer each change of a profile's orders with a Score event: it goes the way of all events."""
    from pipeline import settings as settings_module
    from pipeline.broker import find_kafka
    from pipeline.runtime.kafka.doors import produce_all

    settings = find_kafka(settings_module.load())
    produce_all(settings, "raw", scores(settings))


if __name__ == "__main__":
    {"train": train, "score": score}[sys.argv[1] if len(sys.argv) > 1 else "train"]()
