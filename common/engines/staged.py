"""Training of a method that has several stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .run_folder import RunFolder
from .trainer import AlternatingTrainer


class StagedTrainer:
    """Train the stages of a method one after the other.

    A stage's trainer is made when the stage begins, because it may read files of the earlier stages. Each stage begins
    with the same random state. So its result is the same if it is trained in a separate run.

    Args:
        stages: in order, each makes a trainer; in JSON trainers with ``"_mode_": "callable"``. Each is called with
            ``stage``, its number from 1, and with ``options``. Arguments of its own come first.
        only_stages: number, or numbers, of the stages to train; None for all.
        run_folder: of all stages, whose ``minutes`` are for all of them.
        options: arguments of all stages.

    Raises:
        ValueError: if ``only_stages`` has another number than those of the stages.
    """

    options_of = AlternatingTrainer

    def __init__(
        self,
        stages: Sequence[Callable[..., Any]],
        only_stages: int | Sequence[int] | None = None,
        *,
        run_folder: RunFolder,
        **options: Any,
    ) -> None:
        known = [*range(1, len(stages) + 1)]
        chosen = known if only_stages is None else [only_stages] if isinstance(only_stages, int) else only_stages
        if not chosen or not set(chosen) <= {*known}:
            raise ValueError(
                f'only_stages is {only_stages}, expected some of {known}, for example --only_stages "[{known[-1]}]".'
            )
        self.stages, self.only_stages = stages, sorted(set(chosen))
        self.time_limit, self.options = run_folder.time_limit, {**options, "run_folder": run_folder}

    def run(self) -> None:
        """Train the stages, until they are done or the time is up."""
        for number in self.only_stages:
            if number > self.only_stages[0] and self.time_limit.is_over(f"before stage {number}"):
                return
            self.make_trainer(number).run()

    def make_trainer(self, number: int) -> Any:
        """Make the trainer of a stage.

        Args:
            number: of the stage, from 1.
        """
        stage = partial(self.stages[number - 1])
        return stage(**{"stage": number, **self.options, **stage.keywords})
