"""A bad case does not stop the others, and is not passed over in silence."""

import re
import threading
import warnings
from contextlib import suppress
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from common.data import prepare_lr_hr
from common.program.cases.case import Case
from common.program.cases.evaluator import CaseEvaluator, CasesFailedError, describe_warnings
from common.program.cases.loader import CaseLoader
from common.program.cases.scans import find_scans
from common.runtime.errors import Notice
from common.transforms import CheckHeaderd, CheckVoxelsd
from tests.refused import has, refused

LOAD = LoadImaged("image", reader="NibabelReader", image_only=True)
CHANNEL = EnsureChannelFirstd("image", channel_dim="no_channel")
PREPARATION = Compose([CheckHeaderd("image"), LOAD, CHANNEL, CheckVoxelsd("image")])


def write(path, shape=(5, 5, 5), values=1000):
    data = np.random.default_rng(0).integers(values, size=shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


@pytest.fixture
def good_and_bad(tmp_path):
    write(tmp_path / "a_good.nii.gz")
    write(cut := tmp_path / "b_cut.nii.gz", (30, 31, 32))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write(tmp_path / "c_4d.nii", (6, 6, 6, 2))
    write(tmp_path / "d_empty.nii", values=1)
    write(tmp_path / "e_good.nii")
    return find_scans(str(tmp_path))


@pytest.fixture
def three_good(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.nii")
    return find_scans(str(tmp_path))


ahead_or_not = pytest.mark.parametrize("ahead", [False, True])


@ahead_or_not
def test_cases_come_one_by_one_with_failures_and_problems_in_their_place(good_and_bad, ahead):
    gone = Case({"image": str(good_and_bad[0]["image"])}, "gone.nii: no guide; name one.")
    loader = CaseLoader(Dataset([gone, *good_and_bad], PREPARATION), ahead)
    missing, first, *bad, last = found = list(loader)
    assert len(found) == len(loader) == 6 and missing is None and bad == [None] * 3
    assert gone.problem == "gone.nii: no guide; name one." and loader.cases[0] is gone
    assert first["image"].shape == last["image"].shape == (1, 1, 5, 5, 5)
    for case, name in zip(loader.cases[2:5], ("b_cut", "c_4d", "d_empty"), strict=True):
        assert name in case.problem
        assert "transform" not in case.problem and "\n" not in case.problem  # MONAI's wrapping is taken off
    assert loader.cases[1].problem is loader.cases[5].problem is None


class Counted(torch.nn.Module):
    def __init__(self, failing=0, error=RuntimeError):
        super().__init__()
        self.calls, self.failing, self.error = 0, failing, error

    def forward(self, x):
        self.calls += 1
        if self.calls == self.failing:
            raise self.error("out of memory: tried to allocate 99 GiB")
        return x + 1


def evaluator_of(entries, network=None, steps=PREPARATION, ahead=False, **options):
    options |= {"network": network or torch.nn.Identity(), "device": torch.device("cpu")}
    evaluator = CaseEvaluator(val_data_loader=Dataset(entries, steps), **options)
    evaluator.data_loader.ahead = ahead
    return evaluator


@ahead_or_not
def test_good_cases_finish_and_the_bad_ones_are_listed_at_the_end(good_and_bad, capsys, ahead):
    outputs, network = [], Counted()
    evaluator = evaluator_of(good_and_bad, network, ahead=ahead)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.append(e.state.output))
    words = "3 of 5", "b_cut.nii.gz: ", "c_4d.nii: ", "d_empty.nii: "
    assert "_good.nii" not in refused(evaluator.run, CasesFailedError, *words)
    assert [len(output) for output in outputs] == [1, 0, 0, 0, 1] and network.calls == 2
    assert torch.equal(outputs[4][0]["pred"].as_tensor(), outputs[4][0]["image"].as_tensor() + 1)
    lines = capsys.readouterr().out.splitlines()
    has(lines[3], "4/5 d_empty: ")
    assert re.fullmatch(r"2 of 5 .* \d\.\d s, 3 failed", lines[5]) and len(lines) == 6
    # Nothing to do is no failure.
    evaluator_of([]).run()
    assert capsys.readouterr() == ("no scans to do\n", "")


@ahead_or_not
@pytest.mark.parametrize("where", ["network", "postprocessing"])
def test_a_case_that_fails_on_the_way_is_named_and_the_rest_is_done(three_good, where, ahead):
    network, later = (Counted(2), Counted()) if where == "network" else (Counted(), Counted(2))
    options = {"postprocessing": lambda d: d | {"pred": later(d["pred"])}, "ahead": ahead}
    evaluator = evaluator_of(three_good, network, **options)
    message = refused(evaluator.run, CasesFailedError, "1 of 3", "b.nii: ")
    assert "a.nii" not in message and "c.nii" not in message
    assert network.calls == 3 and later.calls == (2 if where == "network" else 3)
    # And the next run starts with a clean sheet.
    evaluator.run()
    assert evaluator.failures == []
    # A case that nothing can be done with stays so.
    evaluator.data_loader.cases[0].problem = "a.nii: no guide"
    for _ in range(2):
        assert "b.nii" not in refused(evaluator.run, CasesFailedError, "1 of 3", "a.nii: no guide")
    # An interrupted run is interrupted.
    interrupted = options | {"postprocessing": Counted(1, KeyboardInterrupt)}
    refused(evaluator_of(three_good, **interrupted).run, KeyboardInterrupt)


def test_batches_have_a_scan_as_input_hr_as_truth_and_a_guide_beside():
    scan, hr, guide = torch.rand(1), torch.rand(1), torch.rand(1)
    prepare = partial(prepare_lr_hr, device=torch.device("cpu"), non_blocking=True, memory_format=None)
    assert prepare({"lr": scan, "hr": hr}) == (scan, hr) and prepare({"image": scan}) == (scan, None)
    assert prepare({"lr": scan, "hr": hr, "guide": guide}) == (scan, hr, (guide,), {})
    assert prepare({"image": scan, "guide": guide}) == (scan, None, (guide,), {})


def warning_of(*names):
    """A step that warns of these scans twice, gives each scan a notice, and warns of code."""

    def step(data):
        path = str(data["image"] if isinstance(data["image"], str) else data["image"].meta["filename_or_obj"])
        for _ in range(2):
            if path.rsplit("/")[-1] in names:
                warnings.warn(f"{path}: too small; look at it. Or not", stacklevel=2)
        warnings.warn("mended. Nothing to do", Notice, stacklevel=2)
        warnings.warn("old code", DeprecationWarning, stacklevel=2)
        return data

    return step


@ahead_or_not
def test_each_case_has_its_warnings_and_others_stay_pythons(three_good, tmp_path, capsys, ahead):
    entries = [{**entry, "name": f"scan {i}"} for i, entry in enumerate(three_good)]
    steps, later = Compose([warning_of("a.nii", "c.nii"), PREPARATION]), warning_of("c.nii")
    saved = Compose([later, lambda d: d | {"saved_to": f"{tmp_path}/{d['name']}_sr"}])
    evaluator = evaluator_of(entries, steps=steps, postprocessing=saved, ahead=ahead)
    # Handlers may warn too, and print at the end.
    evaluator.add_event_handler(Events.ITERATION_STARTED, lambda e: warnings.warn("dark. And so on", stacklevel=1))
    evaluator.add_event_handler(Events.COMPLETED, lambda e: print("all is done"))
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always", DeprecationWarning)
        evaluator.run()
        evaluator.run()  # as a server does: the same is told again
    assert {warning.category for warning in others} == {DeprecationWarning} and len(others) == 12
    small, dark = [f"{tmp_path}/{name}.nii: too small; look at it. Or not" for name in "ac"], "dark. And so on"
    assert [case.warnings for case in evaluator.cases] == [[small[0], dark], [dark], [small[1], dark]]
    assert [case.notices for case in evaluator.cases] == [["mended. Nothing to do"]] * 3
    assert [case.result for case in evaluator.cases] == [f"{tmp_path}/scan {i}_sr" for i in range(3)]
    said = capsys.readouterr().out
    has(said, f"2/3 scan 1 -> {tmp_path}/scan 1_sr, ", "3 of 3 done", "3 with warnings")
    assert said.count("\nwarning: scan 0, scan 2: ") == said.count("\nnotice: scan 0, scan 1, scan 2: ") == 2


def test_the_next_case_is_loaded_while_the_present_one_is_processed(three_good):
    """By another thread. Its warnings are its own, and what fails there is tried again when its turn has come."""
    warned, main = [threading.Event() for _ in range(4)], threading.current_thread()
    warned[3].set()

    def step(data):
        i = [entry["image"] for entry in three_good].index(data["image"])
        warnings.warn(f"case {i}", stacklevel=2)
        warned[i].set()
        if i == 2 and threading.current_thread() is not main:
            raise MemoryError("the other case has it")
        return data

    class Waiting(Counted):
        def forward(self, x):
            assert warned[self.calls + 1].wait(20)
            return super().forward(x)

    evaluator = evaluator_of(three_good, Waiting(), Compose([step, PREPARATION]), ahead=True)
    evaluator.run()
    assert [case.warnings for case in evaluator.cases] == [[f"case {i}"] for i in range(3)]


@pytest.mark.filterwarnings("default::DeprecationWarning")  # as Python has it
@pytest.mark.parametrize(("rule", "failed"), [("error", 3), ("ignore", 0)])
def test_what_a_user_says_of_warnings_holds(three_good, rule, failed):
    evaluator = evaluator_of(three_good, postprocessing=warning_of("a.nii"))
    with warnings.catch_warnings(), suppress(CasesFailedError):
        warnings.simplefilter(rule, UserWarning)
        evaluator.run()
    assert len(evaluator.failures) == failed and evaluator.cases[0].list_warnings() == []


def test_messages_that_differ_in_figures_are_told_once():
    cases = [Case({"image": f"{name}.nii"}) for name in "abcde"]
    for i, case in enumerate(cases):
        case.add_warning(f"{case['image']}: noisy.\n  {i} %", Notice)
        case.add_warning("bad" if i < 2 else f"bad {i}", UserWarning)
    lines = describe_warnings(cases, most=3)
    assert lines[:2] == ["warning: a, b: bad", "warning: c: bad 2"] and lines[3] == "and 2 other warnings or notices"
    assert describe_warnings(cases, None)[-1] == "notice: a, b, c and 2 more: noisy. Figures of a:\n  0 %"
    assert describe_warnings(cases[:1])[-1] == "notice: a: noisy.\n  0 %"
