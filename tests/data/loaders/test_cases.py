"""A bad case does not stop the others, and is not passed over in silence."""

import contextlib
import re
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from common.data import CaseFailure, CaseLoader, find_images, prepare_lr_hr
from common.engines import CaseEvaluator
from common.engines.evaluator import CasesFailedError
from common.transforms import CheckHeaderd, CheckVoxelsd

PREPARATION = Compose(
    [
        CheckHeaderd("image"),
        LoadImaged("image", reader="NibabelReader", image_only=True),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        CheckVoxelsd("image"),
    ]
)


def write(path, shape=(30, 31, 32), fill=None):
    data = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data if fill is None else np.full_like(data, fill), np.eye(4)), path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two good scans between three bad ones."""
    write(tmp_path / "a_good.nii.gz")
    whole = write(tmp_path / "b_cut.nii.gz").read_bytes()
    (tmp_path / "b_cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "c_4d.nii", (6, 6, 6, 2))
    write(tmp_path / "d_empty.nii", fill=0)
    write(tmp_path / "e_good.nii")
    return tmp_path


def cases_of(folder):
    return CaseLoader(Dataset(find_images(str(folder)), PREPARATION))


def test_cases_come_one_by_one_with_failures_in_their_place(folder):
    loader = cases_of(folder)
    found = list(loader)
    assert len(found) == len(loader) == 5
    assert [isinstance(case, CaseFailure) for case in found] == [False, True, True, True, False]
    assert found[0]["image"].shape == found[4]["image"].shape == (1, 1, 30, 31, 32)
    for case, name, reason in zip(
        found[1:4], ("b_cut", "c_4d", "d_empty"), ("the file is damaged", "3-D volume", "every voxel is 0"), strict=True
    ):
        assert name in case.case and reason in case.reason and "\n" not in case.reason
        assert "transform" not in case.reason  # MONAI's wrapping is taken off


class Counted(torch.nn.Module):
    """Fails on the given calls."""

    def __init__(self, failing=()):
        super().__init__()
        self.calls, self.failing = 0, failing

    def forward(self, x):
        self.calls += 1
        if self.calls in self.failing:
            raise RuntimeError("out of memory: tried to allocate 99 GiB")
        return x + 1


def evaluator_of(loader, network, **options):
    return CaseEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=network, **options)


def test_good_cases_finish_and_the_bad_ones_are_listed_at_the_end(folder):
    done = []
    network = Counted()
    evaluator = evaluator_of(
        cases_of(folder), network, postprocessing=lambda d: done.append(d["image"].meta["filename_or_obj"]) or d
    )
    outputs = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.append(e.state.output))
    with pytest.raises(CasesFailedError) as error:
        evaluator.run()
    message = str(error.value)
    assert message.startswith("3 of 5 cases failed, the others are done:")
    assert all(name in message for name in ("b_cut.nii.gz: ", "c_4d.nii: ", "d_empty.nii: "))
    assert "_good.nii" not in message
    assert [name.rsplit("/")[-1] for name in done] == ["a_good.nii.gz", "e_good.nii"] and network.calls == 2
    assert [len(output) for output in outputs] == [1, 0, 0, 0, 1]
    assert torch.equal(outputs[4][0]["pred"].as_tensor(), outputs[4][0]["image"].as_tensor() + 1)


@pytest.mark.parametrize("where", ["network", "postprocessing"])
def test_a_case_that_fails_on_the_way_is_named_and_the_rest_is_done(tmp_path, where):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.nii", (5, 5, 5))
    network, later = (Counted([2]), Counted()) if where == "network" else (Counted(), Counted([2]))
    evaluator = evaluator_of(cases_of(tmp_path), network, postprocessing=lambda d: d | {"pred": later(d["pred"])})
    with pytest.raises(
        CasesFailedError, match=r"(?s)^1 of 3 cases failed.*b\.nii: RuntimeError: out of memory"
    ) as error:
        evaluator.run()
    assert "a.nii" not in str(error.value) and "c.nii" not in str(error.value)
    assert network.calls == 3 and later.calls == (2 if where == "network" else 3)
    # and the next run starts with a clean sheet
    evaluator.run()
    assert evaluator.failures == []


def test_an_interrupted_run_is_interrupted(tmp_path):
    write(tmp_path / "a.nii", (5, 5, 5))

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator_of(cases_of(tmp_path), torch.nn.Identity(), postprocessing=interrupted).run()


def test_batches_have_a_scan_as_input_hr_as_truth_and_a_guide_beside():
    scan, hr, guide = torch.rand(1), torch.rand(1), torch.rand(1)

    def prepared(**batch):
        return prepare_lr_hr(batch, torch.device("cpu"), non_blocking=True, memory_format=None)

    assert prepared(lr=scan, hr=hr) == (scan, hr)
    assert prepared(image=scan) == (scan, None)
    assert prepared(lr=scan, hr=hr, guide=guide) == (scan, hr, (guide,), {})
    assert prepared(image=scan, guide=guide) == (scan, None, (guide,), {})


def test_an_entry_with_a_problem_fails_with_it_and_is_not_loaded(tmp_path):
    good = write(tmp_path / "a.nii", (5, 5, 5))
    entries = [{"image": str(tmp_path / "gone.nii"), "problem": "gone.nii: no guide; name one."}, {"image": str(good)}]
    failed, done = CaseLoader(Dataset(entries, PREPARATION))
    assert failed == CaseFailure(str(tmp_path / "gone.nii"), "gone.nii: no guide; name one.")
    assert done["image"].shape == (1, 1, 5, 5, 5)


def warning_of(*names):
    """A step that warns of these scans twice, of code by the way, and of all three scans in other words."""

    def step(data):
        path = str(data["image"] if isinstance(data["image"], str) else data["image"].meta["filename_or_obj"])
        for _ in range(2):
            if path.rsplit("/")[-1] in names:
                warnings.warn(f"{path}: too small; look at it. Or not", stacklevel=2)
        warnings.warn("old code", DeprecationWarning, stacklevel=2)
        return data

    return step


def test_each_case_has_its_warnings_and_others_stay_pythons(tmp_path, capsys):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.nii", (5, 5, 5))
    entries = [{**entry, "name": f"scan {i}"} for i, entry in enumerate(find_images(str(tmp_path)))]
    loading, later = warning_of("a.nii", "c.nii"), warning_of("c.nii")
    loader = CaseLoader(Dataset(entries, Compose([loading, PREPARATION])))
    evaluator = evaluator_of(
        loader, torch.nn.Identity(), postprocessing=lambda d: later(d) | {"saved_to": f"{tmp_path}/{d['name']}_sr"}
    )
    # Handlers may warn too, and print at the end.
    evaluator.add_event_handler(Events.ITERATION_STARTED, lambda e: warnings.warn("dark. And so on", stacklevel=1))
    evaluator.add_event_handler(Events.COMPLETED, lambda e: print("all is done"))
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always", DeprecationWarning)
        evaluator.run()
        evaluator.run()  # as a server does: the same is told again
    assert {warning.category for warning in others} == {DeprecationWarning} and len(others) == 12
    small = [f"{tmp_path}/{name}.nii: too small; look at it. Or not" for name in "ac"]
    expected = [[small[0], "dark. And so on"], ["dark. And so on"], [small[1], "dark. And so on"]]
    assert [case.warnings for case in evaluator.cases] == expected
    assert [case.result for case in evaluator.cases] == [f"{tmp_path}/scan {i}_sr" for i in range(3)]
    said = re.sub(r"\d+\.\d s", "T", capsys.readouterr().out).splitlines()
    assert said == 2 * [
        f"1/3 scan 0 -> {tmp_path}/scan 0_sr, T; warning: too small; warning: dark",
        f"2/3 scan 1 -> {tmp_path}/scan 1_sr, T; warning: dark",
        f"3/3 scan 2 -> {tmp_path}/scan 2_sr, T; warning: too small; warning: dark",
        "all is done",
        "3 of 3 done in T, 3 with warnings",
        "warning: scan 0, scan 2: too small; look at it. Or not",
        "warning: scan 0, scan 1, scan 2: dark. And so on",
    ]


@pytest.mark.parametrize(("rule", "failed"), [("error", 1), ("ignore", 0)])
def test_what_a_user_says_of_warnings_holds(tmp_path, rule, failed):
    write(tmp_path / "a.nii", (5, 5, 5))
    evaluator = evaluator_of(cases_of(tmp_path), torch.nn.Identity(), postprocessing=warning_of("a.nii"))
    with warnings.catch_warnings():
        warnings.simplefilter(rule, UserWarning)
        with pytest.raises(CasesFailedError) if failed else contextlib.nullcontext():
            evaluator.run()
    assert len(evaluator.failures) == failed and evaluator.cases[0].warnings == []


def test_a_failure_is_told_in_its_line_and_nothing_to_do_is_no_failure(folder, capsys):
    with pytest.raises(CasesFailedError):
        evaluator_of(cases_of(folder), torch.nn.Identity()).run()
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"4/5 d_empty: failed after \d\.\d s: every voxel is 0, so there is no image", lines[3])
    assert re.fullmatch(r"2 of 5 done in \d\.\d s, 3 failed", lines[5]) and len(lines) == 6
    evaluator_of(CaseLoader(Dataset([], PREPARATION)), torch.nn.Identity()).run()
    assert capsys.readouterr() == ("no scans to do\n", "")
