"""MR series made of a phantom, as scanners store them, and ways to read a series back."""

import copy
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass
class Series:
    plane: str = "axial"  # which way its slices lie, or "sagittal" or "coronal"
    angles: tuple[float, float, float] = (0, 0, 0)  # degrees by which they are tilted
    spacing: tuple[float, float, float] = (1.0, 1.0, 4.0)  # between columns, rows and slices in mm
    shape: tuple[int, int, int] = (32, 28, 10)  # columns, rows, slices
    minimum: int = 0  # of the stored integers; below 0 they are signed
    slopes: Sequence[float] = ()  # rescale slope of each slice, cycled; none for a series without rescale
    intercept: float = 0.0  # rescale intercept
    backwards: bool = False  # whether images and files are numbered against the direction of the normal
    seed: int = 0  # of the phantom
    attributes: dict[str, object] = field(default_factory=dict)  # of every image

    @property
    def lps(self) -> np.ndarray:
        """4x4, index (column, row, slice) to DICOM's world."""
        rows_and_columns = {
            "axial": [[1, 0, 0], [0, 1, 0]],
            "sagittal": [[0, 1, 0], [0, 0, -1]],
            "coronal": [[1, 0, 0], [0, 0, -1]],
        }[self.plane]
        row, column = Rotation.from_euler("xyz", self.angles, degrees=True).apply(rows_and_columns)
        affine = np.eye(4)
        affine[:3, :3] = np.stack([row, column, np.cross(row, column)], axis=1) * self.spacing
        affine[:3, 3] = [-20.25, 11.5, 37.125]
        return affine

    @property
    def stored(self) -> np.ndarray:
        """Integers in the files ``(columns, rows, slices)``: a smooth head with texture, 12 bits."""
        rng = np.random.default_rng(self.seed)
        grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in self.shape], indexing="ij")
        head = sum(x**2 for x in grid) < 0.8
        texture = gaussian_filter(rng.standard_normal(self.shape), (1.5, 1.5, 0.7))
        values = np.rint(np.clip(head * (600 + 300 * texture / texture.std()), 0, 4095)) + self.minimum
        return values.astype(np.int16 if self.minimum < 0 else np.uint16)

    @property
    def values(self) -> np.ndarray:
        """What the files say that the integers mean."""
        return self.stored * np.resize(self.slopes or [1.0], self.shape[2]) + self.intercept

    def images(self) -> list[Dataset]:
        own = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
        uids = {keyword: generate_uid(prefix=None) for keyword in own}
        lps, stored = self.lps, self.stored
        images = []
        for k in range(self.shape[2]):
            image = Dataset()
            image.file_meta = FileMetaDataset()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MRImageStorage
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
            values = {
                "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "Modality": "MR",
                "StudyDate": "20240102", "StudyTime": "101112", "SeriesDate": "20240102", "SeriesTime": "101500",
                "AcquisitionDate": "20240102", "AcquisitionTime": f"1016{k:02d}", "ContentDate": "20240102",
                "ContentTime": f"1016{k:02d}", "AccessionNumber": "A1", "Manufacturer": "Phantom Scanners",
                "ManufacturerModelName": "P1", "DeviceSerialNumber": "77", "SoftwareVersions": ["1", "1.2"],
                "InstitutionName": "Universität", "ReferringPhysicianName": "Müller^Jörg", "StudyID": "5",
                "StudyDescription": "Schädel", "SeriesDescription": "t2 tse", "SeriesNumber": 3,
                "PatientName": "Größe^Anna", "PatientID": "ID-1", "PatientBirthDate": "19500203", "PatientSex": "F",
                "PatientAge": "074Y", "PatientWeight": "61.5", "PatientPosition": "HFS", "BodyPartExamined": "BRAIN",
                "ScanningSequence": "SE", "SequenceVariant": "SK", "ScanOptions": "", "MRAcquisitionType": "2D",
                "RepetitionTime": "4000", "EchoTime": "100", "EchoTrainLength": "12", "MagneticFieldStrength": "3",
                "AcquisitionMatrix": [0, 32, 28, 0], "PixelBandwidth": "130", "SliceLocation": f"{k * 1.5}",
                "SAR": "1.1", "SmallestImagePixelValue": 0, "LargestImagePixelValue": 4095, "PixelAspectRatio": [1, 1],
                "PositionReferenceIndicator": "", "WindowCenter": f"{500 + k}", "WindowWidth": "900",
                "SliceThickness": format_number_as_ds(0.8 * self.spacing[2]),
                "SpacingBetweenSlices": format_number_as_ds(self.spacing[2]),
                "PixelSpacing": [format_number_as_ds(self.spacing[1]), format_number_as_ds(self.spacing[0])],
                "ImageOrientationPatient": _ds((lps[:3, :2] / self.spacing[:2]).T.ravel()),
                "ImagePositionPatient": _ds(lps[:3, 3] + k * lps[:3, 2]),
                "InstanceNumber": self.shape[2] - k if self.backwards else k + 1,
                "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": self.shape[1],
                "Columns": self.shape[0], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
                "PixelRepresentation": int(self.minimum < 0), "PixelData": stored[:, :, k].T.tobytes(),
            }  # fmt: skip
            if self.slopes:
                slope = self.slopes[k % len(self.slopes)]
                values |= {"RescaleSlope": slope, "RescaleIntercept": self.intercept, "RescaleType": "US"}
            for keyword, value in {**values, **uids, **self.attributes}.items():
                setattr(image, keyword, value)
            image.private_block(0x0051, "PHANTOM", create=True).add_new(1, "LO", f"of slice {k}")
            images.append(image)
        return images[::-1] if self.backwards else images

    def save(self, folder: Path) -> list[Dataset]:
        images = self.images()
        save(images, folder)
        return images

    def save_nifti(self, path: Path) -> None:
        """Write the same volume as NIfTI: the integers, or where they are rescaled the values as float32."""
        array = self.values.astype(np.float32) if self.slopes else self.stored.astype(np.int16)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, LPS_TO_RAS @ self.lps), path)


def save(images: Sequence[Dataset], folder: Path, change: Callable[[bytes], bytes] = bytes) -> None:
    """Write images as 0000.dcm, 0001.dcm, ..., the file of the last one changed byte by byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        path = folder / f"{i:04d}.dcm"
        image.save_as(path, enforce_file_format=True)
    path.write_bytes(change(path.read_bytes()))


# Functional groups of enhanced images, with the attributes of classic images that they hold.
GROUPS = {
    "PixelMeasuresSequence": {"PixelSpacing", "SliceThickness", "SpacingBetweenSlices"},
    "PlanePositionSequence": {"ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient"},
    "PixelValueTransformationSequence": {"RescaleSlope", "RescaleIntercept", "RescaleType"},
    "FrameVOILUTSequence": {"WindowCenter", "WindowWidth"},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime", "FlipAngle", "EchoTrainLength"},
    "MREchoSequence": {"EchoTime": "EffectiveEchoTime"},
    "MRImageFrameTypeSequence": {"ImageType": "FrameType", "ComplexImageComponent": "ComplexImageComponent"},
    "MRModifierSequence": {"InversionTime": "InversionTimes"},
    "MRDiffusionSequence": {"DiffusionBValue", "DiffusionGradientDirectionSequence"},
    "CardiacSynchronizationSequence": {"TriggerTime": "NominalCardiacTriggerDelayTime"},
    "FrameContentSequence": {"TemporalPositionIndex", "StackID", "InStackPositionNumber", "DimensionIndexValues"},
}


def enhanced(images: Sequence[Dataset], files: int = 1) -> list[Dataset]:
    """Classic images as one enhanced image, or as a concatenation of several, with a frame for each in their order."""
    parts, concatenation = np.array_split(np.arange(len(images)), files), generate_uid(prefix=None)
    found = []
    for number, part in enumerate(parts, 1):
        own = [images[i] for i in part]
        image = copy.deepcopy(own[0])
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        image.NumberOfFrames, image.InstanceNumber = len(own), number
        if files > 1:
            image.ConcatenationUID, image.InConcatenationNumber = concatenation, number
            image.InConcatenationTotalNumber, image.ConcatenationFrameOffsetNumber = files, int(part[0])
        image.EchoPulseSequence = {"SE": "SPIN", "GR": "GRADIENT"}[image.ScanningSequence]
        del image.ScanningSequence
        image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [Dataset()], []
        for frame in own:
            groups = Dataset()
            for group, keywords in GROUPS.items():
                item = Dataset()
                for keyword in keywords:
                    if keyword in frame:
                        name = keywords[keyword] if isinstance(keywords, dict) else keyword
                        value = frame[keyword].value
                        setattr(item, name, float(value) if name != keyword and name != "FrameType" else value)
                        if keyword in image:
                            delattr(image, keyword)
                if len(item):
                    setattr(groups, group, [item])
            # What a vendor keeps for itself is no attribute of the frame.
            old = groups.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
            old.add_new(0x0F, "SQ", [Dataset()])
            old[0x0F].value[0].RescaleSlope, old[0x0F].value[0].ImagePositionPatient = 7, [0, 0, 0]
            image.PerFrameFunctionalGroupsSequence.append(groups)
        image.ImageType = ["ORIGINAL", "PRIMARY", "T1", "MIXED"]
        image.PixelData = b"".join(frame.PixelData for frame in own)
        found.append(image)
    return found


def read(folder: Path) -> list[Dataset]:
    return sorted((dcmread(path) for path in folder.rglob("*") if path.is_file()), key=lambda d: d.SOPInstanceUID)


def read_by_itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values ``(columns, rows, slices)`` and affine (RAS) of the only series in a folder, as SimpleITK has them."""
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


def read_by_dcm2niix(folder: Path, path: Path) -> nib.Nifti1Image:
    """The only series in a folder, written to a .nii.gz file."""
    name = path.name.removesuffix(".nii.gz")
    command = ["dcm2niix", "-b", "n", "-z", "i", "-f", name, "-o", str(path.parent), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert [*path.parent.glob(f"{name}*")] == [path]
    return nib.load(path)


def standard_errors(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    assert "MRImage" in said, said
    return [line for line in said if line.startswith("Error")]


def _ds(numbers: Sequence[float]) -> list[str]:
    return [format_number_as_ds(float(n)) for n in numbers]
