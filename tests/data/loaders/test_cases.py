"""A bad case does not stop the others, and is not passed over in silence."""

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from common.data import (
    CaseFailure,
    CaseLoader,
    as_lr,
    check_scale,
    find_images,
    find_pairs,
    in_plane_spacing,
    only_case,
    prepare_lr_hr,
    slice_axis_of,
    thin_slice_spacing,
)
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


def write(path, shape=(30, 31, 32), spacing=(1.0, 1.0, 1.0), fill=None, codes="RAS"):
    data = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for column, (axis, sign) in enumerate(ornt):
        affine[int(axis), column] = sign * spacing[int(axis)]
    affine[3, 3] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data if fill is None else np.full_like(data, fill), affine), path)
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


def test_images_are_found_in_a_folder_and_below_in_order(tmp_path):
    for name in ("b.nii", "sub/a.nii.gz", ".hidden.nii", "notes.txt", "c.nii.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert find_images(str(tmp_path)) == [{"image": str(tmp_path / n)} for n in ("b.nii", "sub/a.nii.gz")]
    assert find_images(str(tmp_path), str(tmp_path / "sub")) == [{"image": str(tmp_path / "b.nii")}]
    assert find_images(str(tmp_path / "b.nii")) == [{"image": str(tmp_path / "b.nii")}]


def test_what_holds_no_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_dir '.*nowhere' is neither a folder nor a file"):
        find_images(str(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"holds no \.nii or \.nii\.gz"):
        find_images(str(tmp_path))
    for name in ("1/t1.nii", "2/t1.nii.gz", "2/t2.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"same name: .*1/t1\.nii, .*2/t1\.nii\.gz$"):
        find_images(str(tmp_path))


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def pairs(root, lr, guide, **options):
    """What find_pairs finds, relative to ``root``."""
    found = find_pairs(str(root), lr, guide, **options)
    return [{k: v if k == "subject" else v.removeprefix(f"{root}/") for k, v in entry.items()} for entry in found]


def test_scans_and_guides_are_paired_by_subject(tmp_path):
    """Subjects tell what belongs together, whatever the order; sidecars and results are no scans."""
    touch(tmp_path, "brainix_t1.nii.gz", "brainix_t2.nii.gz", "brainix_t2.json", "out/brainix_t2_sr.nii.gz")
    output_dir = str(tmp_path / "out")
    lone = {"image": "brainix_t2.nii.gz", "guide": "brainix_t1.nii.gz"}
    assert pairs(tmp_path, "**/brainix_t2*", "brainix_t1*", output_dir=output_dir) == [lone]
    assert pairs(tmp_path, "*t2.nii.gz", None) == [{"image": "brainix_t2.nii.gz"}]

    touch(tmp_path, *[f"{s}/{s}_t2w.nii" for s in ("sub-1", "sub-2")], "t1/0_sub-2.nii", "t1/1_sub-1.nii")
    assert pairs(tmp_path, "sub-*/*", "t1/*") == [
        {"image": "sub-1/sub-1_t2w.nii", "guide": "t1/1_sub-1.nii"},
        {"image": "sub-2/sub-2_t2w.nii", "guide": "t1/0_sub-2.nii"},
    ]

    touch(tmp_path, *[f"p/{s}/{c}.nii" for s in ("ann", "bob") for c in ("t1", "t2")])
    assert pairs(tmp_path, "p/*/t2.nii", "p/*/t1.nii", subject="p/(.*)/") == [
        {"image": f"p/{s}/t2.nii", "guide": f"p/{s}/t1.nii", "subject": s} for s in ("ann", "bob")
    ]


def test_scans_that_cannot_be_paired_are_named(tmp_path):
    touch(tmp_path, "a_t2.nii", "b_t2.nii", "a_t1.nii", "c_t1.nii", "x/a_t2.nii", "notes.txt")
    folder, first = str(tmp_path), r"^(?:x/)?(.)_"
    for patterns, options, error, message in (
        (("*_t3*", "*_t1*"), {}, FileNotFoundError, r"no files match --lr '\*_t3\*' in"),
        (("*_t2*", "notes*"), {}, FileNotFoundError, r"no \.nii or \.nii\.gz file matches --guide 'notes\*'"),
        (("x/*",), {"output_dir": str(tmp_path / "x")}, FileNotFoundError, "matches --lr 'x/.*below output_dir"),
        (("",), {}, ValueError, "no --lr pattern"),
        (("*.nii", "*_t1*"), {}, ValueError, "a_t1.nii matches --lr and --guide; make the patterns exclusive"),
        (("*_t2*", "a_t1*"), {"subject": first}, ValueError, r"2 scans but 1 guide; without a guide: b\. .*--subject"),
        (("*_t2*", "*_t1*"), {"subject": first}, ValueError, "2 guides; without a guide: b; without a scan: c"),
        (
            ("**/*_t2*", "*_t1*"),
            {"subject": first},
            ValueError,
            r"--lr matches several volumes of a \(a_t2.nii, x/a_t2",
        ),
        (("**/*_t2*",), {}, ValueError, r"have the same: a_t2\.nii, x/a_t2\.nii; say with --subject"),
    ):
        with pytest.raises(error, match=message):
            find_pairs(folder, *patterns, **options)


def test_batches_have_a_scan_as_input_hr_as_truth_and_a_guide_beside():
    scan, hr, guide = torch.rand(1), torch.rand(1), torch.rand(1)

    def prepared(**batch):
        return prepare_lr_hr(batch, torch.device("cpu"), non_blocking=True, memory_format=None)

    assert prepared(lr=scan, hr=hr) == (scan, hr)
    assert prepared(image=scan) == (scan, None)
    assert prepared(lr=scan, hr=hr, guide=guide) == (scan, hr, (guide,), {})
    assert prepared(image=scan, guide=guide) == (scan, None, (guide,), {})


def entries(tmp_path, lr_spacing, codes="RAS", hr_spacing=(0.7, 0.7, 0.7)):
    hr = [{"hr": str(write(tmp_path / f"hr{i}.nii", (4, 5, 6), hr_spacing))} for i in range(3)]
    return hr, [{"lr": str(write(tmp_path / "low.nii", (4, 5, 6), lr_spacing, codes=codes))}]


@pytest.mark.parametrize(
    ("spacing", "codes", "factors", "slice_axis"),
    [
        ((1.4, 1.4, 1.4), "RAS", (2, 2, 2), "SI"),
        ((1.5, 1.3, 1.4), "LPI", (2, 2, 2), "SI"),
        ((1.4, 1.4, 0.7), "RAS", (2, 2, 1), "SI"),
        ((1.4, 1.4, 0.7), "SRA", (2, 2, 1), "SI"),  # stored in another order
        ((0.7, 1.4, 1.4), "PIR", (2, 2, 1), "LR"),  # slabs across the axis of factor 1
    ],
)
def test_lr_voxels_of_the_scale_are_accepted(tmp_path, spacing, codes, factors, slice_axis):
    check_scale(*entries(tmp_path, spacing, codes), factors, slice_axis)


def test_the_hr_scans_spacing_counts_axis_by_axis(tmp_path):
    check_scale(*entries(tmp_path, (1.4, 1.4, 3.0), "RSA", (0.7, 0.7, 1.5)), (2, 2, 2), "SI")
    with pytest.raises(ValueError, match=r"about \[1\.4, 1\.4, 1\.5\] mm"):
        check_scale(*entries(tmp_path, (1.4, 1.4, 3.0), "RSA", (0.7, 0.7, 1.5)), (2, 2, 1), "SI")


@pytest.mark.parametrize(
    ("spacing", "factors", "slice_axis"),
    [
        ((1.4, 1.4, 0.7), (2, 2, 2), "SI"),
        ((1.4, 1.4, 1.4), (2, 2, 1), "SI"),
        ((0.7, 1.4, 1.4), (2, 2, 1), "SI"),
        ((1.4, 1.4, 0.7), (2, 2, 1), "AP"),
        ((1.75, 1.4, 1.4), (2, 2, 2), "SI"),
        ((0.7, 0.7, 0.7), (2, 2, 2), "SI"),
    ],
)
def test_lr_voxels_that_contradict_the_scale_are_refused(tmp_path, spacing, factors, slice_axis):
    with pytest.raises(ValueError) as error:
        check_scale(*entries(tmp_path, spacing), factors, slice_axis)
    message = str(error.value)
    assert f"scale factor {list(factors)}" in message and "low.nii: [" in message and "Set scale" in message
    assert str([round(0.7 * f, 3) for f in factors]) in message and "hr0" not in message


def test_what_has_no_lr_or_cannot_be_read_is_left_to_others(tmp_path):
    hr, lr = entries(tmp_path, (9, 9, 9))
    check_scale(hr, hr, (2, 2, 2), "SI")
    check_scale([], lr, (2, 2, 2), "SI")
    (tmp_path / "low.nii").write_text("no image")
    check_scale([*hr, {"hr": "missing.nii"}], lr, (2, 2, 2), "SI")


def test_a_pair_of_two_people_is_refused(tmp_path):
    """One scan and one guide need no rule, but labels that contradict each other are believed."""
    for name in ("sub-01_t2w.nii.gz", "sub-02_t1w.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"sub-01_t2w.nii.gz is of sub-01 and the guide sub-02_t1w.nii.gz of sub-02"):
        find_pairs(str(tmp_path), "*_t2w*", "*_t1w*")


def test_only_case():
    """One entry by its number, and an error that says how many there are."""
    assert only_case([{"hr": "a"}, {"hr": "b"}], 1) == [{"hr": "b"}]
    for wrong in (2, -1, True, "0"):
        with pytest.raises(ValueError, match="expected one of the 2: 0 to 1"):
            only_case([{"hr": "a"}, {"hr": "b"}], wrong)


def test_in_plane_spacing_is_the_median_in_the_order_of_the_slabs_axes(tmp_path):
    """Stored in any order; slices run along the axis that is asked for, whatever their distance."""
    for i, (left, codes) in enumerate([(0.7, "RAS"), (0.71, "SRA"), (0.72, "PIL")]):
        write(tmp_path / f"{i}.nii", (4, 5, 6), (left, 0.9, 3.0 + i), codes=codes)
    entries = [{"hr": str(tmp_path / f"{i}.nii")} for i in range(3)]
    assert in_plane_spacing(entries, "SI") == pytest.approx([0.71, 0.9])
    (tmp_path / "bad.nii").write_text("no image")
    unreadable = {"hr": str(tmp_path / "bad.nii")}
    assert in_plane_spacing([*entries, unreadable], "SI") == pytest.approx([0.71, 0.9])
    assert in_plane_spacing([unreadable], "SI") == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"(?s)\[0\.71, 4\.0\] mm.*to 5 %.*0\.nii: \[0\.7, 3\.0\] mm.*2\.nii"):
        in_plane_spacing(entries, "AP")
    write(tmp_path / "other.nii", (4, 5, 6), (0.71, 1.0, 3.0))
    with pytest.raises(ValueError) as error:
        in_plane_spacing([*entries, {"hr": str(tmp_path / "other.nii")}], "SI")
    assert "other.nii: [0.71, 1.0] mm" in str(error.value) and "0.nii" not in str(error.value)


def test_entries_as_lr_scans_keep_hr_only_where_there_is_no_lr_at_all():
    entries = [{"hr": "a", "subject": "1"}, {"hr": "b", "lr": "c", "subject": "2"}, {"lr": "d"}]
    assert as_lr(entries) == [{"lr": "c", "subject": "2"}, {"lr": "d"}]
    assert as_lr(entries[:1]) == entries[:1]
    assert entries[1]["hr"] == "b"


def test_thin_slice_spacing_is_the_median_grid_that_thin_slices_have(tmp_path):
    """Thick slices divided by the scale, thin ones as they are, stored in any order; slices last."""
    spacings = [(0.8, 0.9, 4.0), (0.81, 0.9, 4.4), (0.82, 0.9, 4.2)]
    for i, (spacing, codes) in enumerate(zip(spacings, ("RAS", "SRA", "PIL"), strict=True)):
        write(tmp_path / f"{i}.nii", (4, 5, 6), spacing, codes=codes)
    lr = [{"lr": str(tmp_path / f"{i}.nii")} for i in range(3)]
    assert thin_slice_spacing(lr, "SI", 4) == pytest.approx([0.81, 0.9, 1.05])
    write(tmp_path / "thin.nii", (4, 5, 6), (0.8, 0.9, 1.2))
    thin, unreadable = {"hr": str(tmp_path / "thin.nii")}, {"lr": str(tmp_path / "bad.nii")}
    (tmp_path / "bad.nii").write_text("no image")
    assert thin_slice_spacing([lr[0], thin, unreadable], "SI", 4) == pytest.approx([0.8, 0.9, 1.1])
    # Where both are known the thick slices count.
    assert thin_slice_spacing([lr[0] | thin], "SI", 4) == pytest.approx([0.8, 0.9, 1.0])
    assert thin_slice_spacing([thin], "LR", 4) == pytest.approx([0.9, 1.2, 0.8])
    assert thin_slice_spacing([unreadable], "SI", 4) == [1.0, 1.0, 1.0]


def test_a_grid_that_is_off_the_others_is_refused(tmp_path):
    for name, spacing in (("a", (1, 1, 4)), ("b", (1, 1, 4.4)), ("c", (1, 1, 6)), ("d", (0.7, 1, 4))):
        write(tmp_path / f"{name}.nii", (4, 5, 6), spacing)
    entries = [{"lr": str(tmp_path / f"{name}.nii")} for name in "aabcd"]
    with pytest.raises(ValueError, match=r"by 4 across slices .* \[1\.0, 1\.0, 1\.05\] mm, .* to 20 %") as error:
        thin_slice_spacing(entries, "SI", 4)
    message = str(error.value)
    assert "c.nii: [1.0, 1.0, 1.5] mm" in message and "d.nii: [0.7, 1.0, 1.0] mm" in message
    assert "a.nii" not in message and "b.nii" not in message
    assert thin_slice_spacing(entries[:3], "SI", 4) == pytest.approx([1.0, 1.0, 1.05])


def test_the_slice_axis_is_the_one_that_all_scans_show(tmp_path):
    for i, codes in enumerate(("RAS", "SRA", "PIL")):
        write(tmp_path / f"{i}.nii", (4, 5, 6), (0.8, 4.0, 0.9), codes=codes)
    write(tmp_path / "cube.nii", (4, 5, 6))
    write(tmp_path / "sagittal.nii", (4, 5, 6), (4.0, 0.8, 0.8))
    (tmp_path / "bad.nii").write_text("no image")
    cube, sagittal, bad = ({"hr": str(tmp_path / f"{name}.nii")} for name in ("cube", "sagittal", "bad"))
    coronal = [{"lr": str(tmp_path / f"{i}.nii")} for i in range(3)]
    assert slice_axis_of([*coronal, cube, bad], "auto") == "AP"
    assert slice_axis_of([coronal[0] | sagittal], "auto") == "AP", "the LR scan counts"
    assert slice_axis_of([sagittal], "auto") == "LR"
    assert slice_axis_of([bad], "auto") == slice_axis_of([], "auto") == "SI"
    assert slice_axis_of([*coronal, sagittal, cube], "SI") == "SI"
    with pytest.raises(
        ValueError, match=r"(?s)same axis .*0\.nii: AP\n.*2\.nii: AP\n.*sagittal\.nii: LR\n.*--slice_axis"
    ):
        slice_axis_of([*coronal, sagittal, cube], "auto")
    with pytest.raises(ValueError, match=r"(?s)no scan shows it:.*cube\.nii: the spacing .*--slice_axis SI"):
        slice_axis_of([cube, bad], "auto")
