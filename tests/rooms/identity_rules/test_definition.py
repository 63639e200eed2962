"""identity.yaml: what people write, what it becomes, and what they are told when it is wrong."""

from typing import Any

import pytest
import yaml

from pipeline.definitions.identity import IdentityDefinition, identity_rules, parse_identity
from pipeline.errors import DefinitionError
from pipeline.identity import IdentityRules, Junk, builtin_rules

FULL = r"""
identity:
  default_region: DE
  quarantine_after: 25
  namespaces:
    email: {limit: 5, strip_plus_tag: true, blocked: ['@example\.com$']}
    loyalty_card: {priority: 15, unique: true, normaliser: digits, on_conflict: latest}
    cookie: {limit: 50}
    user_id: {limit: 3}
"""


def rules_of(text: str) -> IdentityRules:
    return parse_identity(yaml.safe_load(text)).to_rules()


def test_nothing_written_is_what_is_built_in() -> None:
    for text in ("identity:", "identity: {}", "{}", "identity: {namespaces: {}}"):
        assert rules_of(text) == builtin_rules()


def test_what_is_written_changes_only_what_it_names() -> None:
    rules = rules_of(FULL)
    email, card = rules.namespace("email"), rules.namespace("loyalty_card")
    assert (email.priority, email.normaliser, email.limit, email.unique) == (20, "email", 5, False)
    assert rules.clean("email", "Ann+x@Shop.io") == "ann@shop.io"
    assert rules.clean("email", "ann@EXAMPLE.com") == Junk("blocked_pattern")
    assert (card.capacity, card.on_conflict) == (1, "latest")
    assert rules.clean("loyalty_card", "12-34") == "1234"
    assert (rules.quarantine_after, rules.clean("phone", "0151 12345678")) == (25, "+4915112345678")
    assert rules.namespace("phone") == builtin_rules().namespace("phone")
    # A limit makes the namespace one that is not unique any more.
    assert rules.namespace("user_id").capacity == 3


def test_the_order_of_declared_and_undeclared_namespaces() -> None:
    rules = rules_of(FULL)
    names = ["cookie", "zeta", "anonymous_id", "loyalty_card", "alpha", "user_id", "email"]
    ordered = sorted(names, key=lambda name: rules.order(f"{name}:1"))
    assert ordered == ["user_id", "loyalty_card", "email", "anonymous_id", "alpha", "cookie", "zeta"]
    # Declaring a limit moves nobody's route.
    assert rules.order("cookie:1") == builtin_rules().order("cookie:1")


def test_a_stored_version_gives_the_same_rules() -> None:
    definition = parse_identity(yaml.safe_load(FULL))
    body = definition.to_body()
    assert body["namespaces"]["cookie"] == {"limit": 50}
    assert identity_rules(body) == definition.to_rules()
    assert identity_rules({}) == builtin_rules()


def test_the_strict_preset_says_always_the_same() -> None:
    """Versions in the topic `definitions` keep only its name: rules that change with a release would let a stage and
    its replay disagree. Whoever wants other rules gives them another name."""
    fillers = [r"^(nil|n/a|test|default|true|false|[-_.?*]+)$"]
    written = {
        "user_id": {"blocked": fillers},
        "email": {
            "blocked": [
                r"^(tests?|testing|null|undefined|none|nan|unknown|anonymous)@",
                r"^(no|do-?not)[-_.]?reply@",
                r"[@.](test|invalid|localhost)$",
            ],
        },
        "device_id": {"quarantine_after": 1, "blocked": [*fillers, "^9774d56d682e549c$", "^02:00:00:00:00:00$"]},
        "anonymous_id": {"quarantine_after": 1, "blocked": fillers},
    }
    strict = parse_identity({"preset": "strict"})
    assert strict.to_rules() == parse_identity({"namespaces": written}).to_rules() != builtin_rules()
    assert strict.to_body() == {"preset": "strict"}
    # Events go where they went: it can be chosen while a workspace lives.
    for name, namespace in builtin_rules().namespaces.items():
        assert strict.to_rules().namespace(name).priority == namespace.priority


def test_what_is_written_beside_a_preset_goes_before_it() -> None:
    beside = {"email": {"person": True, "blocked": []}, "device_id": {"quarantine_after": 3}, "card": {"unique": True}}
    rules = parse_identity({"preset": "strict", "quarantine_after": 5, "namespaces": beside}).to_rules()
    assert rules.namespace("email").is_person
    assert rules.clean("email", "test@test.com") == "test@test.com"
    assert rules.namespace("device_id").quarantine_after == 3
    assert rules.clean("device_id", "n/a") == Junk("blocked_pattern")
    assert rules.namespace("anonymous_id").quarantine_after == 1
    assert (rules.namespace("card").capacity, rules.quarantine_after) == (1, 5)


@pytest.mark.parametrize(
    ("namespace", "junk", "kept"),
    [
        ("user_id", ["Test", "N/A", "nil", "--", "true"], ["tester", "na", "test-1", "-1a", "7"]),
        (
            "email",
            ["test@test.com", "TESTS@x.io", "no-reply@shop.io", "DoNotReply@x.io", "null@x.io", "ann@shop.test"],
            ["ann@x.io", "test.ann@x.io", "ann@test.io", "ann@mail.example", "reply@x.io", "norman@x.io"],
        ),
        ("device_id", ["9774D56D682E549C", "02:00:00:00:00:00", "?"], ["9774d56d682e549d", "02:00:00:00:00:01"]),
        ("anonymous_id", ["default", "__"], ["default-1"]),
    ],
)
def test_what_the_strict_preset_takes_for_nobody(namespace: str, junk: list[str], kept: list[str]) -> None:
    strict = parse_identity({"preset": "strict"}).to_rules()
    assert {one: strict.clean(namespace, one) for one in junk} == dict.fromkeys(junk, Junk("blocked_pattern"))
    assert {one: strict.clean(namespace, one) for one in kept} == {one: one for one in kept}
    # Nothing of that without the preset: who tries the platform as test@test.com sees what became of it.
    assert all(not isinstance(builtin_rules().clean(namespace, one), Junk) for one in junk)


WRONG: list[tuple[Any, str]] = [
    ({"preset": "lenient"}, "preset: "),
    ({"preset": None, "presets": "strict"}, "presets: there is no such field; did you mean preset?"),
    ([], "must be a mapping"),
    ({"identity": "strict"}, "must be a mapping"),
    ({"quarantine_afer": 3}, "quarantine_afer: there is no such field; did you mean quarantine_after?"),
    ({"namespaces": {"email": {"limits": 3}}}, "namespaces.email.limits: there is no such field; did you mean limit?"),
    ({"namespaces": {"email": {"zzz": 3}}}, "namespaces.email.zzz: fields are priority, unique, limit"),
    ({"namespaces": {"email": {"limit": 0}}}, "namespaces.email.limit: "),
    ({"namespaces": {"email": {"priority": 0}}}, "namespaces.email.priority: "),
    ({"namespaces": {"email": {"normaliser": "upper"}}}, "namespaces.email.normaliser: "),
    ({"namespaces": {"email": {"on_conflict": "last"}}}, "namespaces.email.on_conflict: "),
    ({"namespaces": {"email": {"blocked": ["ok", "("]}}}, "namespaces.email.blocked.1: the blocked pattern '('"),
    ({"namespaces": {"email": {"blocked": [r"(a)\1"]}}}, "RE2"),
    ({"namespaces": {"email": {"unique": True, "limit": 2}}}, "namespaces.email: unique means a limit of 1"),
    ({"namespaces": {"e:mail": {}}}, "namespaces.e:mail: 'e:mail' cannot name a namespace"),
    ({"namespaces": {"account": {"limit": 1}}}, "namespaces.account: 'account' names accounts"),
    ({"namespaces": {"card": {"priority": 20}}}, "email and card share the priority 20"),
    ({"namespaces": {"card": {"strip_plus_tag": True}}}, "strip_plus_tag needs the normaliser email"),
    ({"default_region": "Germany"}, "default_region: 'Germany' is not a country"),
    ({"quarantine_after": 0}, "quarantine_after: "),
]


@pytest.mark.parametrize(("document", "told"), WRONG)
def test_every_mistake_is_told_with_its_place(document: Any, told: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_identity(document, "shop/identity.yaml")
    assert told in caught.value.what
    assert caught.value.where == "shop/identity.yaml"
    assert caught.value.what_to_do


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_identity({"quarantine_after": 0, "default_region": "xx", "namespaces": {"email": {"limit": -1}}})
    assert len(caught.value.what.splitlines()) == 4


def test_every_field_is_described() -> None:
    schema = IdentityDefinition.model_json_schema()
    fields = {**schema["properties"], **schema["$defs"]["NamespaceDefinition"]["properties"]}
    assert {name for name, one in fields.items() if "description" not in one} == {"namespaces"}


def test_how_long_pseudonyms_are_kept_changes_nothing_of_who_is_who() -> None:
    definition = parse_identity(yaml.safe_load("identity: {pseudonymous_for: 30d}"))
    assert definition.to_rules().expire_after_ms == 30 * 86_400_000
    assert identity_rules(definition.to_body()).expire_after_ms == 30 * 86_400_000
    # Nobody has to be resolved anew because of it.
    assert definition.to_rules() == builtin_rules()
    for wrong in ("90", "1s", "soon", "0d"):
        with pytest.raises(DefinitionError, match="pseudonymous_for"):
            parse_identity({"pseudonymous_for": wrong})
