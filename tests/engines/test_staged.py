"""Stages of a training: what each gets, and when."""

from functools import partial
from typing import ClassVar

import pytest
import torch

from common.engines import RunFolder, StagedTrainer
from tests.refused import refused


class Stage:
    ran: ClassVar[list] = []

    def __init__(self, stage, **options):
        self.made_after, self.options = len(Stage.ran), {"stage": stage, **options}

    def run(self):
        Stage.ran.append((self.made_after, self.options))
        torch.rand(1)


@pytest.mark.parametrize(("only_stages", "numbers"), [(None, [1, 2, 3]), ([3, 1], [1, 3]), (2, [2])])
def test_a_stage_is_made_when_it_begins_with_the_options_of_all_and_its_own(only_stages, numbers, tmp_path):
    Stage.ran = []
    made_by = [Stage, partial(Stage, rate=2), partial(Stage, stage="last")]
    folder = RunFolder(tmp_path)
    staged = StagedTrainer(made_by, only_stages, run_folder=folder, rate=1, epochs=4)
    staged.run()
    of = {1: {"stage": 1, "rate": 1}, 2: {"stage": 2, "rate": 2}, 3: {"stage": "last", "rate": 1}}
    shared = {"epochs": 4, "run_folder": folder}
    assert Stage.ran == [(i, {**of[number], **shared}) for i, number in enumerate(numbers)]


def test_stages_that_are_none_are_refused(tmp_path):
    for wrong in ([], 0, [1, 3]):
        staged = partial(StagedTrainer, [Stage, Stage], wrong, run_folder=RunFolder(tmp_path))
        refused(staged, ValueError, f"only_stages is {wrong}", "[1, 2]", '"[2]"')
