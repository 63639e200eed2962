"""Contracts, rules and destinations together: what `apply` refuses, and by which way the data would have gone."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.definitions.apply import plan_apply
from pipeline.definitions.catalog import Catalog, activation_plan, generation_plan
from pipeline.definitions.loader import Written, load
from pipeline.definitions.log import checked_leaves
from pipeline.definitions.segments import leaves_of
from pipeline.errors import DefinitionError
from pipeline.records import Generation

WARRANTY: dict[str, Any] = {
    "contract": "warranty",
    "sources": ["forms"],
    "unplanned_events": "reject",
    "purposes": ["warranty"],
    "events": {
        "Warranty Registered": {
            "unplanned_properties": "strip",
            "properties": {"serial": {"type": "string"}, "shop": {"purposes": ["warranty", "marketing"]}},
            "traits": {"type": "object", "properties": {"device": {}}},
        }
    },
}
SHOP: dict[str, Any] = {
    "contract": "shop",
    "events": {
        "Order Completed": {"properties": {"total": {}, "note": {"labels": ["sensitive"]}}},
        "Identify": {"traits": {"type": "object", "properties": {"email": {"labels": ["pii"]}, "plan": {}}}},
    },
}
BROKEN: dict[str, Any] = {"segment": "broken", "when": {"performed": {"event": "Warranty Registered"}}}
LOYAL: dict[str, Any] = {"segment": "loyal", "when": {"all": [{"in_segment": "broken"}, {"trait": {"plan": "pro"}}]}}
NOTED: dict[str, Any] = {
    "segment": "noted",
    "when": {"performed": {"event": "Order Completed", "where": {"properties.note": {"contains": "gift"}}}},
}
CLAIMS: dict[str, Any] = {"computed": "claims", "compute": {"function": "count", "event": "Warranty Registered"}}
ANY: dict[str, Any] = {"segment": "active", "when": {"performed": {"event": "*", "within": "7d"}}}
PLAN: dict[str, Any] = {"segment": "pros", "when": {"trait": {"plan": "pro"}}}


def written_of(*bodies: dict[str, Any]) -> list[Written]:
    keys = {"computed": "trait", **{key: key for key in ("segment", "contract", "destination", "consent", "alert")}}
    return [Written(keys[key], body[key], body) for body in bodies for key in keys if key == next(iter(body))]  # type: ignore[arg-type]


def catalog_of(*bodies: dict[str, Any]) -> tuple[Catalog, Generation]:
    plan = plan_apply(Catalog(), written_of(*bodies), leaves_of=leaves_of, applied_at=1)
    assert plan.generation is not None
    return Catalog().with_definitions(plan.definitions), plan.generation


def ads(**fields: Any) -> dict[str, Any]:
    return {"destination": "ads", "kind": "file", "path": "/tmp/ads.jsonl", **fields}


REFUSED = [
    ({"segments": ["broken"]}, "Warranty Registered → segment broken → destination ads"),
    ({"segments": ["loyal"]}, "Warranty Registered → segment broken → segment loyal → destination ads"),
    ({"segments": ["noted"]}, "properties.note of Order Completed → segment noted → destination ads"),
    ({"segments": ["active"]}, "any event → segment active → destination ads"),
    ({"segments": ["pros"], "traits": ["claims"]}, "Warranty Registered → computed trait claims → destination ads"),
    ({"segments": ["pros"], "traits": ["email"]}, "traits.email → destination ads"),
    ({"segments": ["pros"], "traits": ["device"]}, "traits.device → destination ads"),
    ({"events": ["Warranty Registered"]}, "Warranty Registered → destination ads"),
]


@pytest.mark.parametrize(("fields", "way"), REFUSED, ids=[way for _, way in REFUSED])
def test_what_a_destination_may_not_have_is_refused_by_the_way_it_would_go(fields: dict[str, Any], way: str) -> None:
    destination = ads(purposes=["marketing"], **fields)
    catalog, generation = catalog_of(WARRANTY, SHOP, BROKEN, LOYAL, NOTED, CLAIMS, ANY, PLAN, destination)
    with pytest.raises(DefinitionError) as refused:
        generation_plan(catalog, generation)
    assert refused.value.where == way
    # And it is refused by whoever applies, before a stage that cannot compile it meets it.
    bodies = (WARRANTY, SHOP, BROKEN, LOYAL, NOTED, CLAIMS, ANY, PLAN, destination)
    with pytest.raises(DefinitionError) as refused:
        plan_apply(Catalog(), written_of(*bodies), leaves_of=checked_leaves, applied_at=1)
    assert refused.value.where == way


def test_with_the_purpose_and_the_label_it_is_taken() -> None:
    destination = ads(
        purposes=["warranty"], labels=["pii", "sensitive"], segments=["broken", "loyal", "noted"], traits=["email"]
    )
    catalog, generation = catalog_of(WARRANTY, SHOP, BROKEN, LOYAL, NOTED, destination)
    assert generation_plan(catalog, generation).activation.restricts


def test_what_is_named_by_a_star_comes_without_what_it_may_not_have() -> None:
    destination = ads(segments="*", events="*", profiles=True)
    catalog, generation = catalog_of(WARRANTY, SHOP, BROKEN, LOYAL, NOTED, CLAIMS, PLAN, destination)
    plan = generation_plan(catalog, generation).activation
    projector = plan._projectors["ads"]
    assert [one for one in ("broken", "loyal", "noted", "pros") if projector.may_have_segment(one)] == ["pros"]
    assert not projector.may_have_event("Warranty Registered") and projector.may_have_event("Order Completed")


def test_a_trait_that_is_described_nowhere_is_as_the_events_that_may_bring_it() -> None:
    loose = {**WARRANTY, "events": {"Warranty Registered": {}}}
    catalog, generation = catalog_of(loose, SHOP, ads(purposes=["marketing"], segments=["pros"], traits=["city"]), PLAN)
    with pytest.raises(DefinitionError, match="may be used for warranty only"):
        activation_plan(catalog, generation)
    catalog, generation = catalog_of(
        WARRANTY, SHOP, ads(purposes=["marketing"], segments=["pros"], traits=["city"]), PLAN
    )
    activation_plan(catalog, generation)


def test_events_of_a_contract_that_lets_others_in_are_as_the_contract() -> None:
    open_ = {**WARRANTY, "unplanned_events": "allow"}
    seen: dict[str, Any] = {"segment": "seen", "when": {"performed": {"event": "Page Viewed"}}}
    catalog, generation = catalog_of(open_, seen, ads(purposes=["marketing"], segments=["seen"]))
    with pytest.raises(DefinitionError, match="Page Viewed"):
        activation_plan(catalog, generation)


def test_the_example_of_the_docs_is_refused_as_it_says(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/privacy.md").read_text()
    [example] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "contract: warranty" in block]
    (tmp_path / "warranty.yaml").write_text(example)
    catalog, generation = catalog_of(*(one.body for one in load([tmp_path])))
    with pytest.raises(DefinitionError) as refused:
        activation_plan(catalog, generation)
    assert refused.value.what in " ".join(text.split()) and refused.value.where in text


def test_what_is_computed_from_labelled_data_is_labelled_where_there_is_no_destination() -> None:
    noted = {"computed": "noted", "compute": {"function": "last", "of": "properties.note", "event": "Order Completed"}}
    plan = activation_plan(*catalog_of(SHOP, noted, NOTED))
    assert plan.data.computed["noted"].labels == {"sensitive"} == plan.data.segments["noted"].labels
    assert not plan.restricts, "nobody gets any of it"


def test_without_contracts_everything_is_free() -> None:
    catalog, generation = catalog_of(BROKEN, ads(segments=["broken"], traits=["email"]))
    assert not generation_plan(catalog, generation).activation.restricts


def test_a_hash_is_of_the_normalised_value() -> None:
    from hashlib import sha256

    fields = {"traits.email": "sha256", "traits.phone": "sha256", "traits.plan": "sha256"}
    catalog, generation = catalog_of(ads(fields=fields, traits=["email", "phone", "plan"]))
    projector = activation_plan(catalog, generation)._projectors["ads"]
    values = {"email": " Ada@Example.org", "phone": "+49 (170) 123 45 67", "plan": " Pro "}
    found = projector._transformed("traits", values)
    right = {"email": "ada@example.org", "phone": "+491701234567", "plan": "pro"}
    assert found == {name: sha256(text.encode()).hexdigest() for name, text in right.items()}


@pytest.mark.parametrize("address", ["email", "traits", "traits.", "headers.x", "traits..a"])
def test_an_address_that_leads_nowhere_is_a_mistake(address: str) -> None:
    from pipeline.definitions.kinds import mistakes_in

    [mistake] = mistakes_in("destination", ads(fields={address: "mask"}))
    assert "is no field" in mistake.what


def test_a_purpose_that_is_none_is_refused() -> None:
    from pipeline.definitions.consent import ConsentDefinition
    from pipeline.definitions.destinations import DestinationDefinition, purposes_known

    policy = ConsentDefinition.model_validate({"consent": "default", "purposes": {"ads": "consent"}}).compiled()
    destination = DestinationDefinition.model_validate(ads(purposes=["adds"])).compiled()
    with pytest.raises(DefinitionError, match="The destination ads has the purpose adds"):
        purposes_known("destination", {destination.name: destination.purposes}, policy)
    policy_body = {"consent": "default", "purposes": {"ads": "consent"}}
    catalog, generation = catalog_of({**PLAN, "purposes": ["adds"]}, policy_body)
    with pytest.raises(DefinitionError, match="The segment pros has the purpose adds"):
        activation_plan(catalog, generation)


MARKETING = {"purposes": ["marketing"]}
ACCOUNTS: dict[str, Any] = {
    "contract": "crm",
    "sources": ["crm"],
    "unplanned_events": "reject",
    "events": {"Group": {"properties": {"plan": {"purposes": ["billing"]}, "size": {"labels": ["sensitive"]}}}},
}
BIG: dict[str, Any] = {"segment": "big", "entity": "account", "when": {"trait": {"size": {"greater_than": 100}}}}
PAYING: dict[str, Any] = {"segment": "paying", "entity": "account", "when": {"trait": {"plan": {"exists": True}}}}
INVOLVED: dict[str, Any] = {
    "segment": "involved",
    "entity": "account",
    "when": {"members": {"match": {"performed": {"event": "Warranty Registered"}}, "at_least": 2}},
}
STAFF: dict[str, Any] = {"segment": "staff", "when": {"account": {"in_segment": "paying"}}}
SCORED: dict[str, Any] = {
    "segment": "scored",
    "when": {"score": {"events": [{"event": "Warranty Registered", "weight": 1}], "half_life": "7d", "at_least": 1}},
}
ASKED: dict[str, Any] = {"segment": "asked", "when": {"computed": {"claims": {"at_least": 1}}}}
OWN = [
    ([BROKEN], "broken", "Warranty Registered → segment broken"),
    ([BROKEN, LOYAL], "loyal", "Warranty Registered → segment broken → segment loyal"),
    ([SCORED], "scored", "Warranty Registered → segment scored"),
    ([CLAIMS, ASKED], "asked", "Warranty Registered → computed trait claims → segment asked"),
    ([INVOLVED], "involved", "Warranty Registered → segment involved"),
    ([PAYING], "paying", "traits.plan of an account → segment paying"),
    ([PAYING, STAFF], "staff", "traits.plan of an account → segment paying → segment staff"),
]


@pytest.mark.parametrize(("bodies", "name", "way"), OWN, ids=[way for _, _, way in OWN])
def test_a_segment_may_look_at_nothing_that_is_not_for_what_it_is_for(
    bodies: list[dict[str, Any]], name: str, way: str
) -> None:
    def with_purposes(*purposes: str) -> list[dict[str, Any]]:
        own = [{**one, "purposes": list(purposes)} if one.get("segment") == name else one for one in bodies]
        return [WARRANTY, SHOP, ACCOUNTS, *own]

    with pytest.raises(DefinitionError, match=f"The segment {name} may not look at .* is for marketing") as refused:
        plan_apply(Catalog(), written_of(*with_purposes("marketing")), leaves_of=checked_leaves, applied_at=1)
    assert refused.value.where == way
    allowed = "billing" if "plan" in way else "warranty"
    generation_plan(*catalog_of(*with_purposes(allowed)))
    with pytest.raises(DefinitionError, match="is for marketing"):
        generation_plan(*catalog_of(*with_purposes(allowed, "marketing")))


def test_what_a_segment_is_for_is_said_of_everything_that_rests_on_it() -> None:
    care = {**PLAN, "purposes": ["care"]}
    over: dict[str, Any] = {"segment": "over", "when": {"in_segment": "pros"}}
    for segments, way in (
        (["pros"], "segment pros → destination ads"),
        (["over"], "segment pros → segment over → destination ads"),
    ):
        catalog, generation = catalog_of(care, over, ads(segments=segments, **MARKETING))
        with pytest.raises(DefinitionError, match="may be used for care only") as refused:
            generation_plan(catalog, generation)
        assert refused.value.where == way
    with pytest.raises(DefinitionError, match="The segment over may not look at what it asks for: segment pros may be"):
        generation_plan(*catalog_of(care, {**over, **MARKETING}))
    generation_plan(*catalog_of(care, {**over, "purposes": ["care"]}, ads(segments=["over"], purposes=["care"])))
    plan = generation_plan(*catalog_of(care, over, ANY, ads(segments="*", **MARKETING))).activation
    assert [one for one in ("pros", "over", "active") if plan._projectors["ads"].may_have_segment(one)] == ["active"]


def test_of_accounts_a_destination_gets_what_their_own_fields_allow() -> None:
    for fields, way in (
        ({"segments": ["big"]}, "traits.size of an account → segment big → destination ads"),
        ({"segments": [], "entity": "account", "traits": ["size"]}, "traits.size of an account → destination ads"),
        ({"alerts": ["grown"]}, "traits.size of an account → segment big → alert grown → destination ads"),
        ({"alerts": ["told"]}, "traits.size of an account → alert told → destination ads"),
    ):
        alerts = [{"alert": "grown", "enters": "big"}, {"alert": "told", "enters": "paying", "traits": ["size"]}]
        bodies = (ACCOUNTS, BIG, PAYING, *alerts, ads(purposes=["billing"], **fields))
        with pytest.raises(DefinitionError, match="sensitive") as refused:
            generation_plan(*catalog_of(*bodies))
        assert refused.value.where == way
        bodies = (ACCOUNTS, BIG, PAYING, *alerts, ads(purposes=["billing"], labels=["sensitive"], **fields))
        generation_plan(*catalog_of(*bodies))
