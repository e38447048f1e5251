"""The SDK's operators, corrected for super-resolution, and a writer.

Lines of files are those of the SDK's operators, version 4.0.0.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.deploy.core import Fragment, Image, IOType, Operator, OperatorSpec
from monai.deploy.core.domain.dicom_series import DICOMSeries
from monai.deploy.core.domain.dicom_series_selection import SelectedSeries, StudySelectedSeries
from monai.deploy.core.domain.dicom_study import DICOMStudy
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from monai.deploy.operators.monai_bundle_inference_operator import get_bundle_config
from nibabel.affines import voxel_sizes

from common.io.files import list_files
from common.io.slice_axis import SLICE_AXIS
from common.program.dicom.pixels import read_voxels
from common.program.dicom.search import find_series
from common.program.dicom.series import Series, choose_stack
from common.program.dicom.tags import format_some
from common.program.dicom.write import get_slice_thickness, write_series
from common.program.exams.people import explain_strangers, make_owner

RULES = '{"selections": [{"name": "MR", "conditions": {"Modality": "^MR$"}}]}'


class LoaderOperator(DICOMDataLoaderOperator):
    """The SDK's loader, with errors instead of silent losses.

    The SDK skips files that it cannot parse (dicom_data_loader_operator.py:173) and drops all images but one at each
    position (223). It merges series of the same UID (199), and holds all pixels of a study in memory (172). Here these
    cases are errors, now or in the check of the used series, and only headers are read.
    """

    def load_data_to_studies(self, input_path: Path) -> list[DICOMStudy]:
        """Group the DICOM files under a folder by study and series."""
        series_list = find_series(input_path)
        if not series_list:
            others = format_some(list_files(input_path))
            raise ValueError(f"{input_path}: no DICOM file in it, expected those of an MR series; found {others}.")
        studies: dict[str, DICOMStudy] = {}
        groups: dict[tuple[str, str], DICOMSeries] = {}
        for stack in series_list:
            if not stack.headers:
                raise ValueError(stack.problem)
            first = stack.headers[0]
            study_uid, series_uid = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
            if study_uid not in studies:
                studies[study_uid] = DICOMStudy(study_uid)
                self.populate_study_attributes(studies[study_uid], first)
            if (study_uid, series_uid) not in groups:
                groups[study_uid, series_uid] = DICOMSeries(series_uid)
                groups[study_uid, series_uid].Modality = first.get("Modality")
                groups[study_uid, series_uid].stacks = []
                studies[study_uid].add_series(groups[study_uid, series_uid])
            groups[study_uid, series_uid].stacks.append(stack)
            for header in stack.headers:
                groups[study_uid, series_uid].add_sop_instance(header)
        return list(studies.values())


class SelectorOperator(DICOMSeriesSelectorOperator):
    """The SDK takes the first of several series (dicom_series_selector_operator.py:364); this one needs a choice.

    Args:
        series: SeriesInstanceUID of the series to super-resolve, or None for the only MR series.
        guide: SeriesInstanceUID of the guide, or None.
    """

    def __init__(self, fragment: Fragment, *args, series: str | None, guide: str | None, **kwargs) -> None:
        self.chosen_series = {"image": series, **({"guide": guide} if guide else {})}
        super().__init__(fragment, *args, rules=RULES, all_matched=True, **kwargs)

    def filter(self, selection_rules, dicom_study_list, all_matched=False, sort_by_sop_instance_count=False):
        """Select the series named on the command line, or the only one of modality MR."""
        matched = super().filter(selection_rules, dicom_study_list, all_matched)
        candidates = [(study.study, matching.series) for study in matched for matching in study.selected_series]
        everything = [(study, series) for study in dicom_study_list for series in study.get_all_series()]
        result = []
        for name, uid in self.chosen_series.items():
            option = "series" if name == "image" else name
            if uid is None:
                matching = [pair for pair in candidates if pair[1].SeriesInstanceUID != self.chosen_series.get("guide")]
            else:
                matching = [pair for pair in everything if pair[1].SeriesInstanceUID == uid]
            if len(matching) != 1:
                listed = "".join(f"\n  {stack.description}" for _, series in everything for stack in series.stacks)
                wanted = f"the series {uid}" if uid else "one MR series"
                raise ValueError(
                    f"expected {wanted}, found {len(matching) or 'none'}; choose with --{option} SeriesInstanceUID. "
                    f"The input holds:{listed}"
                )
            selected = StudySelectedSeries(matching[0][0])
            selected.add_selected_series(SelectedSeries(name, matching[0][1]))
            result.append(selected)
        return result


class VolumeOperator(DICOMSeriesToVolumeOperator):
    """The SDK's conversion to a volume, with corrected geometry and values.

    The SDK exchanges the two pixel spacings (dicom_series_to_volume_operator.py:415), takes the slice spacing from the
    first two slices (334), and drops slices without a position (318). It casts all slices to the type of the first,
    which truncates fractions (224), and inverts MONOCHROME1 images (175).
    :func:`common.program.dicom.series.choose_stack` accepts only one evenly spaced stack, and keeps float precision.

    Named outputs: an ``Image`` for each selected series, "image" and possibly "guide"; and "source", the series to
    super-resolve.

    Args:
        names: of the images.
        single_frame: whether a guide must have the frame of reference of its scan; needed unless it is registered.
    """

    def __init__(self, fragment: Fragment, *args, names: list[str], single_frame: bool, **kwargs) -> None:
        self.names, self.single_frame = names, single_frame
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input(self.input_name_series)
        for name in self.names:
            spec.output(name)
        spec.output("source")

    def compute(self, op_input, op_output, context) -> None:
        """Read the selected series and emit the volumes."""
        volumes = {}
        for selected in op_input.receive(self.input_name_series):
            choice = selected.selected_series[0]
            series = choice.series
            volumes[choice.selection_name] = choose_stack(series.stacks, f"the series {series.SeriesInstanceUID}")
        owners = [make_owner(name, volume.headers[0], labelled=False) for name, volume in volumes.items()]
        if (reason := explain_strangers(owners, visits=True)) is not None:
            raise ValueError(reason)
        frames = {volume.headers[0].get("FrameOfReferenceUID") for volume in volumes.values()}
        if self.single_frame and len(frames) > 1:
            raise ValueError(
                "the series and its guide have different frames of reference, so their relative position is not known; "
                "choose a guide of the same session, or add --register True."
            )
        for name, volume in volumes.items():
            op_output.emit(_convert_to_image(volume), name)
        op_output.emit(volumes["image"], "source")


class BundleOperator(MonaiBundleInferenceOperator):
    """The SDK's bundle operator, with the values and the grid of the result.

    The SDK takes no overrides (monai_bundle_inference_operator.py:573), runs our transforms that save files (604), and
    loads weights without a check, for float32 (730). It casts image outputs to uint8 (982) and keeps the input's affine
    (787). Here the network is that of the evaluator, and values, affine and metadata come from postprocessing.

    Args:
        bundle: the exported bundle's folder.
        overrides: values for keys of its ``inference.json``.
        names: of the inputs, "image" first.
    """

    def __init__(self, fragment: Fragment, *args, bundle: Path, overrides: Mapping, names: list[str], **kwargs) -> None:
        self.overrides = {**overrides, "bundle_root": str(bundle)}
        self.names = names
        super().__init__(
            fragment,
            *args,
            input_mapping=[IOMapping(name, Image, IOType.IN_MEMORY) for name in names],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=bundle,
            **kwargs,
        )

    def _init_config(self, config_names) -> None:
        # As in the SDK, but with overrides set before anything is built.
        sys.path.insert(0, str(self.bundle_path))
        self._parser = get_bundle_config(str(self.bundle_path), config_names)
        for key, value in {**self.overrides, "dataset#data": []}.items():
            self._parser[key] = value
        self._device, self._inferer = map(self._parser.get_parsed_content, ("device", "inferer"))
        self.network = self._parser.get_parsed_content("evaluator").network
        self._inputs = {name: {"type": "image"} for name in self.names}
        self._outputs = {"pred": {"type": "image"}}
        self._preproc = self._get_compose("preprocessing", [])
        self._postproc = self._get_compose("postprocessing", ["SaveVolume"])

    def predict(self, data, *args, **kwargs) -> torch.Tensor:
        """Super-resolve a batch with the bundle's network and inferer; a guide comes as a keyword."""
        return self._inferer(data, self.network, **kwargs)

    def _send_output(self, value: MetaTensor, name: str, metadata: dict, op_output, context) -> None:
        origin = {"name": Path(self.bundle_path).absolute().name, "sha256": self.network.origin["file_sha256"]}
        bundle = {**self._parser["_meta_"], **origin}
        voxels = np.swapaxes(torch.as_tensor(value)[0].numpy(), 0, 2)
        affine = np.asarray(value.affine, dtype=np.float64)
        op_output.emit(Image(voxels, {"affine": affine, "bundle": bundle}), name)


class WriterOperator(Operator):
    """Write the result as a derived MR series, ``<output>/<SeriesInstanceUID>``, completely or not at all.

    Named inputs: "pred", an ``Image`` with "affine" and "bundle", and "source", its source volume.

    Args:
        output: parent of the series' folder.
        part: folder on the same disk, for the files until all are written.
    """

    def __init__(self, fragment: Fragment, *args, output: Path, part: Path, **kwargs) -> None:
        self.output, self.part = output, part
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("pred")
        spec.input("source")

    def compute(self, op_input, op_output, context) -> None:
        """Write the files, then move their folder to the output."""
        result, source = op_input.receive("pred"), op_input.receive("source")
        metadata = result.metadata()
        folder = self.part / "series"
        folder.mkdir()
        affine, bundle = metadata["affine"], metadata["bundle"]
        uid = write_series(folder, result.asnumpy(), affine, source.affine, source.headers, bundle)
        folder.rename(self.output / uid)
        print(f"written: {self.output / uid}")


def _convert_to_image(series: Series) -> Image:
    """Convert a series to the SDK's ``Image``, with the keys for its bundle operator."""
    first, thickness = series.headers[0], get_slice_thickness(series.headers)
    row, column, depth = voxel_sizes(series.affine)
    return Image(
        read_voxels(series.headers),
        {
            "row_pixel_spacing": row,
            "col_pixel_spacing": column,
            "depth_pixel_spacing": depth,
            "nifti_affine_transform": series.affine,
            "space": "RAS",
            SLICE_AXIS: 2,
            # For messages of the bundle's transforms.
            "filename_or_obj": f"series {first.SeriesInstanceUID} ({Path(first.filename).parent})",
            **({} if thickness is None else {"SliceThickness": thickness}),
        },
    )
