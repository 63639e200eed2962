"""The contract suite for sources, for those in other repositories too.

from connectors.testing_sources import SourceContract

class TestMine(SourceContract):
    def options(self): return {"path": ...}
    def put(self, number): ...          # one more record in the system; what `poll` gives as its value
    def break_system(self): ...         # from now on the system cannot be reached, or refuses all
    def mend_system(self): ...          # and now it can be again
    source = MySource
"""

from typing import Any, ClassVar

from pydantic import ValidationError

from connectors.sources import MAX_POSITION, Pulled, Source

_ENOUGH = 100


class SourceContract:
    """Subclass it under a name that begins with Test."""

    source: ClassVar[type[Source]]

    def options(self) -> dict[str, Any]:
        """Options that work, as they would stand in a definition."""
        raise NotImplementedError

    def put(self, number: int) -> Any:
        """Add a record to the system, the newest; gives the value that `poll` must give for it."""
        raise NotImplementedError

    def break_system(self) -> None:
        """Make the system fail for a while."""
        raise NotImplementedError

    def mend_system(self) -> None:
        """End the failure."""
        raise NotImplementedError

    def open(self) -> Source:
        """A source, opened as the role does."""
        return self.source("tested", self.source.options_model.model_validate(self.options()))

    def _pulled(self, position: str | None = None, limit: int = 3, acknowledge: bool = True) -> list[Pulled]:
        """Everything behind a position, as a new process pulls it."""
        source, found = self.open(), list[Pulled]()
        try:
            for _ in range(_ENOUGH):
                batch = source.poll(position, limit)
                assert len(batch) <= limit, f"asked for {limit} at most, {len(batch)} came"
                if not batch:
                    return found
                found += batch
                position = batch[-1].position
                if acknowledge:
                    source.acknowledged(position)
            raise AssertionError(f"there is no end: {_ENOUGH} batches, the last at {position!r}")
        finally:
            source.close()

    @staticmethod
    def _values(pulled: list[Pulled]) -> list[Any]:
        return [each.value for each in pulled if each.value is not None]

    def test_the_class_describes_itself(self) -> None:
        assert isinstance(self.source.kind, str) and self.source.kind
        assert self.source.max_batch >= 1

    def test_everything_is_pulled_in_its_order(self) -> None:
        put = [self.put(number) for number in range(1, 8)]
        assert self._values(self._pulled()) == put

    def test_nothing_is_pulled_of_nothing(self) -> None:
        assert self._pulled() == []

    def test_one_at_a_time_is_the_same(self) -> None:
        put = [self.put(number) for number in range(1, 5)]
        assert self._values(self._pulled(limit=1)) == put

    def test_positions_are_texts_that_differ(self) -> None:
        for number in range(1, 6):
            self.put(number)
        positions = [each.position for each in self._pulled()]
        assert len(set(positions)) == len(positions)
        assert all(isinstance(each, str) and 0 < len(each) <= MAX_POSITION for each in positions)

    def test_a_new_process_goes_on_behind_any_position(self) -> None:
        put = [self.put(number) for number in range(1, 8)]
        # Killed before it could acknowledge anything: the system may not have forgotten what was only pulled.
        pulled = [each for each in self._pulled(acknowledge=False) if each.value is not None]
        for done in range(len(pulled)):
            rest = self._values(self._pulled(pulled[done].position, acknowledge=False))
            assert rest == put[done + 1 :], f"behind the record {done + 1}"

    def test_what_comes_later_is_pulled_later(self) -> None:
        self.put(1)
        [first] = self._pulled()[-1:]
        later = [self.put(number) for number in (2, 3)]
        assert self._values(self._pulled(first.position)) == later

    def test_a_position_may_be_acknowledged_twice(self) -> None:
        self.put(1)
        source = self.open()
        try:
            [pulled] = source.poll(None, 1)
            source.acknowledged(pulled.position)
            source.acknowledged(pulled.position)
            assert self._values(list(source.poll(pulled.position, 1))) == []
        finally:
            source.close()

    def test_a_failing_system_raises_and_then_works_again(self) -> None:
        put = [self.put(number) for number in (1, 2)]
        source = self.open()
        try:
            self.break_system()
            try:
                source.poll(None, 10)
            except Exception as error:  # noqa: BLE001 - whatever its client raises
                assert str(error), "say what happened: somebody will have to mend it"
            else:
                raise AssertionError("poll said that there is nothing, where nothing could be known")
            finally:
                self.mend_system()
            assert self._values(list(source.poll(None, 10))) == put
        finally:
            source.close()

    def test_unknown_options_are_refused(self) -> None:
        try:
            self.source.options_model.model_validate({**self.options(), "no_such_option": 1})
        except ValidationError:
            return
        raise AssertionError("an option that does not exist was accepted")
