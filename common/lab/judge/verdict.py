"""What a result is worth, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ...metrics.verdict import compare_with_cubic, describe_errors, describe_verdict
from ...metrics.volume import compute_nrmse, find_score_range, scale_to_range
from ...program.volume import Volume
from .assessment import Assessment, Judgement, Rows
from .person import Person


class Verdict(Assessment):
    """The scan: whether each result is finer than cubic interpolation and agrees with it. With HR, which is nearer."""

    name = "verdict"
    question = "What is the result worth?"
    columns: ClassVar[Mapping[str, str]] = {
        "verdict": "with HR by nrmse_masked of the scores; else by the difference from cubic interpolation and from "
        "the scan, and what the JSON says of the weights"
    }
    asked_by = ("scan",)
    by = None

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        self.person = person

    def judge(self) -> Judgement:
        rows: Rows = []
        for result in self.person.results:
            texts = self._compare_with_hr(result) or _describe_result(self.person, result)
            rows += [{"result": result.label, "verdict": " ".join(texts)}] if texts else []
        return Judgement(rows)

    def _compare_with_hr(self, result: Volume) -> list[str]:
        if (hr := self.person.hr) is None:
            return []
        levels = find_score_range(hr.voxels)
        *volumes, truth = (scale_to_range(each.voxels, *levels) for each in (result, self.person.cubic, hr))
        text = describe_errors(*(compute_nrmse(each, truth, self.person.tissue) for each in volumes))
        return [text if self.person.units is None else f"{text}; {self.person.units}"]


def _describe_result(person: Person, result: Volume) -> list[str]:
    """The verdict, if there is one; a result of several scans has that of its JSON, which knows their motion."""
    record, scan = result.record, person.scan
    assert scan is not None
    if record and "Degradation" not in record:
        return [f"by its JSON: {record['Verdict']}"] if "Verdict" in record else []
    volumes = torch.from_numpy(result.voxels), result.affine, torch.from_numpy(scan.voxels), scan.affine
    if (comparison := compare_with_cubic(*volumes)) is None:
        return []
    return [describe_verdict(comparison, record.get("OutsideTraining"), bool(record.get("Contradicts")))]
