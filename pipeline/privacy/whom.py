"""Whom a request is about, where what it names is not what the person can be acted upon by.

a profile_id           leads to the living profile, as in every look-up; that is named after one of its identifiers
a spelling of before   a normaliser has changed since: what comes is spelled otherwise, and is somebody else's
what is blocked by now ingest takes no event under it
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pipeline.errors import LookupFailed
from pipeline.identifiers import Keys, identifier, split_identifier
from pipeline.identity import IdentityRules, Junk
from pipeline.lookup import as_kept, find_person, is_profile_id, known_in, person_or_profile
from pipeline.records import PrivacyRequest, ProfileDocument, Suppression
from pipeline.runtime.kafka.doors import current_value
from pipeline.settings import Settings


class NotTakenInError(LookupFailed):
    """The person is known by nothing that ingest takes in as theirs, and so cannot be spoken for."""


class Whom:
    """Whom the requests of a workspace are about. `suppressions`: who was erased, as far as that is known."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        rules: Callable[[], IdentityRules],
        suppressions: Mapping[str, Suppression],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._rules = rules
        self._suppressions = suppressions

    def asked_for(self, request: PrivacyRequest) -> str:
        """Whom a request names: an identifier as the pipeline writes it, or a profile_id. Raises InputError."""
        wanted = person_or_profile(request.identifier, self._rules())
        known = known_in(partial(current_value, self._settings))
        return as_kept(request.identifier, wanted, known, whole=request.request == "erase")

    def is_kept_out(self, text: str) -> bool:
        """Whether an identifier's person was erased, or is being erased, and has not consented anew."""
        kept = self._kept(text)
        return kept is not None and kept.consented_at <= kept.at

    def known(self, text: str) -> list[str]:
        """The identifiers by which a person is known now, first of all the one they are asked for by: the identity
        stage has the last word on them. Raises LookupFailed if a profile_id is nobody's."""
        try:
            document = self._profile(text)
        except LookupFailed:
            if is_profile_id(text):
                raise
            return [text]
        first = self._named_after(document) if is_profile_id(text) else text
        return list(dict.fromkeys((first, *identifiers_of(document))))

    def spelled_otherwise(self, known: Sequence[str]) -> list[str]:
        """By which other identifiers, as the rules in force spell them, events of the same person come now. They are
        somebody else's until a replay, and of who is forgotten they would be the way back."""
        rules, found = self._rules(), dict.fromkeys(known, False)
        for text in known:
            namespace, value = split_identifier(text)
            spelled = rules.spelled(namespace, value)
            if not isinstance(spelled, Junk):
                found.setdefault(identifier(namespace, spelled), True)
        return [text for text, is_other in found.items() if is_other and not self.is_kept_out(text)]

    def spoken_for(self, request: PrivacyRequest) -> str:
        """The identifier by which a request that is no erasure can be carried out.

        Raises:
            LookupFailed: nobody is known by it. NotTakenInError: they are, and there is no such identifier.
        """
        text = request.identifier
        if is_profile_id(text):
            text = self._named_after(self._profile(text))
        if request.request == "export" or self.is_kept_out(text) or self._is_taken_in(text):
            return text
        for one in identifiers_of(self._profile(text)):
            if self._is_taken_in(one):
                return one
        raise NotTakenInError("None of their identifiers is one that ingest takes in by the rules in force.")

    def _kept(self, text: str) -> Suppression | None:
        return self._suppressions.get(self._keys.actor(text).decode())

    def _profile(self, text: str) -> ProfileDocument:
        return find_person(text, partial(current_value, self._settings))

    def _named_after(self, document: ProfileDocument) -> str:
        """The identifier a profile is named after: the one that stays with its id, whatever was parted from it."""
        for text in identifiers_of(document):
            kept = self._kept(text)
            epochs = (0, kept.epoch if kept is not None else 0)
            if document.profile_id in (self._keys.profile_id(text, epoch) for epoch in epochs):
                return text
        return identifiers_of(document)[0]

    def _is_taken_in(self, text: str) -> bool:
        namespace, value = split_identifier(text)
        return self._rules().clean(namespace, value) == value


def identifiers_of(document: ProfileDocument) -> list[str]:
    """The identifiers of a profile, as they are kept, strongest first."""
    return [f"{pair.namespace}:{pair.value}" for pair in document.identifiers]
