"""The MONAI Deploy app in its requirements' environment, with DICOM tools, Orthanc and exported bundles (BUNDLES)."""

import contextlib
import copy
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1, RLELossless, generate_uid

from ..bundles import runs
from . import dicom

APP = Path(__file__).parents[2] / "common" / "program" / "apps" / "deploy"
SERIES = {
    "axial, oblique": dicom.Series(angles=(8, -5, 12), spacing=(0.9, 1.1, 4.0)),
    "sagittal, backwards": dicom.Series("sagittal", angles=(3, 4, -6), minimum=-300, backwards=True, seed=1),
    "coronal, rescaled": dicom.Series("coronal", slopes=(0.25,), intercept=-20.0, seed=2, attributes={
        "ScanningSequence": ["GR", "IR"], "InversionTime": "900", "BodyPartExamined": "KNEE", "Laterality": "L",
        "ScanOptions": ["CG", "FS"], "TriggerTime": "30", "ContrastBolusAgent": "Gd",
    }),
    "each slice rescaled": dicom.Series(slopes=(0.01, 5.0, 0.4), backwards=True, seed=3, attributes={
        "InversionTime": "0", "SeriesNumber": 2**31 - 1, "SliceThickness": "-5",
        "PatientIdentityRemoved": "YES", "PatientSex": "0000", "LossyImageCompression": "01",
        "StationName": "a name\0that no standard allows", "ProtocolName": "x" * 65,
    }),
    "sparse header": dicom.Series(seed=4, attributes=dict.fromkeys((
        "EchoTime", "ScanOptions", "WindowCenter", "WindowWidth", "SliceThickness", "PatientSex", "StudyID",
        "BodyPartExamined",
    ))),
}  # fmt: skip
# Of a slice of the input, and not of the result.
STALE = "SAR AcquisitionMatrix PixelBandwidth LargestImagePixelValue PixelAspectRatio".split()


@pytest.fixture(scope="session")
def bundles() -> Path:
    folder = Path(os.environ["BUNDLES"]).absolute()
    assert (folder / "udean_window" / "models" / "model.pt").is_file(), (
        f"BUNDLES={folder} holds no exported udean_window"
    )
    return folder


@pytest.fixture(scope="session")
def app():
    """Run the application in this process, as ``python common/program/apps/deploy`` does; its exit code."""
    sys.path.insert(0, str(APP))
    import app

    return lambda data, out, bundle, *options: app.main(
        ["app", "-i", str(data), "-o", str(out), "-m", str(bundle), *options]
    )


@pytest.fixture
def refused(app, tmp_path, capfd):
    """Check that the application ends with 1, a message that matches a pattern, and nothing written."""

    def check(pattern, bundle, *options):
        code = app(tmp_path / "in", tmp_path / "out", bundle, *options)
        said = capfd.readouterr().err
        message = said[said.rindex("error: ") :]
        assert code == 1 and not list(tmp_path.glob("out/*")), message
        assert re.search(pattern, message), message

    return check


def run_process(*arguments, **environment):
    command = [sys.executable, str(APP), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in environment.items()}}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, errors="replace")


def by_inference(bundle: Path, data: Path, output: Path) -> Path:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(data.absolute()), "--output_dir", str(output.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=bundle)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def results(app, bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    for i, (name, series) in enumerate(SERIES.items()):
        series.save(folder / "dicom" / str(i))
        series.save_nifti(folder / "nifti" / f"{i}.nii.gz")
        assert app(folder / "dicom" / str(i), folder / "out" / str(i), bundles / "udean_window") == 0, name
    by_inference(bundles / "udean_window", folder / "nifti", folder / "sr")
    return folder


@pytest.fixture(params=range(len(SERIES)), ids=[*SERIES])
def result(results, request):
    """A series, its images, the folder of its result, and the same by NIfTI."""
    i = request.param
    (written,) = (results / "out" / str(i)).iterdir()
    expected = nib.load(results / "sr" / f"{i}_sr.nii.gz")
    return [*SERIES.values()][i], dicom.read(results / "dicom" / str(i)), written, expected


def test_values_and_geometry(result, tmp_path):
    """Every reader finds what inference on NIfTI gives, at the same place; integers are the same integers."""
    series, _, folder, expected = result
    written = dicom.read(folder)[0]
    step = float(written.get("RescaleSlope", 0))
    wide = np.ptp(series.values) / min(series.slopes or [1]) > 65535
    assert step == pytest.approx(np.ptp(expected.get_fdata()) / 65535 if wide else min(series.slopes or [0]))
    found, affine = dicom.read_by_itk(folder)
    np.testing.assert_allclose(affine, expected.affine, atol=2e-5)
    np.testing.assert_allclose(found, expected.get_fdata(), atol=0.501 * step, rtol=1e-6)
    assert found.shape == tuple(2 * n for n in series.shape)
    # The axes are the input's at half the spacing. From the left, from posterior and from inferior LR voxel 0 lies on
    # HR voxel 0, so that an axis that runs the other way begins half an LR voxel before the input's.
    lr = dicom.LPS_TO_RAS @ series.lps
    first = np.where(nib.io_orientation(lr)[:, 1] < 0, -0.5, 0)
    np.testing.assert_allclose(affine[:3, 3], nib.affines.apply_affine(lr, first), atol=1e-5)
    np.testing.assert_allclose(affine[:3, :3], lr[:3, :3] / 2, atol=1e-5)
    other = nib.as_closest_canonical(dicom.read_by_dcm2niix(folder, tmp_path / "written.nii.gz"))
    expected = nib.as_closest_canonical(expected)
    np.testing.assert_allclose(other.affine, expected.affine, atol=1e-3)
    np.testing.assert_allclose(other.get_fdata(), expected.get_fdata(), atol=0.501 * step + 1e-3)


def test_header(result):
    """Nothing that the standard calls an error; what is of the patient and the study stays, what is of a slice goes."""
    series, inputs, folder, _ = result
    for path in folder.iterdir():
        assert dicom.standard_errors(path) == []
    images = sorted(dicom.read(folder), key=lambda image: image.InstanceNumber)
    assert [image.InstanceNumber for image in images] == list(range(1, 2 * series.shape[2] + 1))
    normal = series.lps[:3, 2] * (-1 if series.backwards else 1)
    assert (np.diff([np.dot(image.ImagePositionPatient, normal) for image in images]) > 0).all()
    first, source = images[0], inputs[0]
    assert first.SeriesInstanceUID != source.SeriesInstanceUID == first.ReferencedSeriesSequence[0].SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in first.SourceImageSequence}
    assert referenced == {image.SOPInstanceUID for image in inputs}
    uids = [image.SOPInstanceUID for image in images]
    assert len({*uids, *referenced}) == len(images) + len(inputs)
    assert first.get("LossyImageCompression") == source.get("LossyImageCompression")
    for keyword in ("Laterality", "ContrastBolusAgent", "TriggerTime"):
        assert (first.get(keyword) or None) == source.get(keyword), keyword
    assert first.SeriesNumber == 1000 + (source.SeriesNumber if source.SeriesNumber < 10**6 else 0)
    for image in images:
        for keyword in (
            "StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientBirthDate", "PatientAge",
            "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "EchoTime",
            "RepetitionTime", "MagneticFieldStrength", "PatientPosition", "BodyPartExamined",
        ):  # fmt: skip
            assert (image.get(keyword) or None) == (source.get(keyword) or None), keyword
        assert image.SeriesInstanceUID == first.SeriesInstanceUID
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        np.testing.assert_allclose(image.PixelSpacing, [series.spacing[1] / 2, series.spacing[0] / 2])
        assert image.SpacingBetweenSlices == image.SliceThickness == series.spacing[2] / 2
        assert not any(element.keyword in STALE or element.tag.is_private for element in image)
        assert ("RescaleSlope" in image) == bool(series.slopes)
        # A window beyond the signal is replaced.
        if source.WindowCenter is not None and series.values.max() > 600:
            assert (image.WindowCenter, image.WindowWidth) == (500 + (series.shape[2] - 1) / 2, 900)
    metadata = Path(os.environ["BUNDLES"]) / "udean_window" / "configs" / "metadata.json"
    assert json.loads(metadata.read_text())["version"] in first.DerivationDescription
    assert source.SeriesInstanceUID in first.DerivationDescription
    assert re.search("udean_window, version.*SHA-256 of its weights [0-9a-f]{64}", first.DerivationDescription)
    items = first.ContributingEquipmentSequence
    equipment = [(item.Manufacturer, item.PurposeOfReferenceCodeSequence[0].CodeMeaning) for item in items]
    assert ("Phantom Scanners", "Acquisition Equipment") in equipment and first.Manufacturer != "Phantom Scanners"


def test_each_form(app, bundles, tmp_path):
    """Each bundle makes of thick slices and of frames in one file what it makes of them as NIfTI, by dcm2niix."""
    scans = bundles / "scans"
    for path in scans.glob("*.nii.gz"):
        for folder in ["pair", *(["nifti"] if "t2w" in path.name else [])]:
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / folder)
    for bundle in [bundles / name for name in runs.FORMS]:
        guided = "guided" in json.loads((bundle / "configs" / "inference.json").read_text())
        sr = by_inference(bundle, tmp_path / ("pair" if guided else "nifti"), tmp_path / "sr" / bundle.name)
        for name in ("thick", "enhanced"):
            out, chosen = tmp_path / "out" / bundle.name / name, []
            arguments = scans / name / ("" if guided else "scan"), out, bundle
            if guided:
                uids = [dicom.read(scans / name / kind)[0].SeriesInstanceUID for kind in ("scan", "guide")]
                chosen = ["--series", uids[0], "--guide", uids[1]]
                assert app(*arguments) == 1 and not any(out.iterdir())
            assert app(*arguments, *chosen) == 0, (bundle.name, name)
            (folder,) = out.iterdir()
            assert [error for path in folder.iterdir() for error in dicom.standard_errors(path)] == []
            found = nib.as_closest_canonical(dicom.read_by_dcm2niix(folder, out / "written.nii.gz"))
            expected = nib.as_closest_canonical(nib.load(sr / f"sub-{name}_t2w_sr.nii.gz"))
            np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3, err_msg=bundle.name)
            np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata(), err_msg=bundle.name)


def test_headers_say_how_thick_the_slices_are(app, bundles, tmp_path, capfd):
    """Fine-tuning believes them, as it does the JSON beside a NIfTI file."""
    dicom.Series(spacing=(1.0, 1.0, 4.0), attributes={"SliceThickness": "3"}).save(tmp_path / "in")
    assert app(tmp_path / "in", tmp_path / "out", bundles / "ct_guided", "--adapt_iterations", "2") == 0
    assert "slices are 0.75 times as thick as they are apart, as its protocol says" in "".join(capfd.readouterr())


def set_all(**values):
    def change(images):
        for image in images:
            for keyword, value in values.items():
                setattr(image, keyword, value)

    return change


def set_one(**values):
    return lambda images: set_all(**values)(images[4:5])


def without(keyword):
    return lambda images: delattr(images[4], keyword)


def again(**values):
    def change(images):
        for image in copy.deepcopy(images):
            uid = generate_uid(prefix=None)
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
            set_all(**values)([image])
            images.append(image)

    return change


def compressed(images):
    """Pixel data that say that they are compressed, and are nothing that could be decoded."""
    for image in images:
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        image.PixelData = encapsulate([b"\xff\xd8nothing\xff\xd9"])
        image["PixelData"].is_undefined_length = True


UNCLEAN = {
    "two series": (again(SeriesInstanceUID="1.2.3"), r"one MR series, found 2; .*--series(.*\n)* +1\.2\.3  num"),
    "missing slice": (lambda images: images.pop(4), r"lacks 1 slices.*between 0003\.dcm .*expected even steps"),
    "out of place": (set_one(ImagePositionPatient=[-20.25, 11.5, 54.925]), r"2\.2 to 5\.8 mm apart, half.* to 4 mm"),
    "sheared": (set_one(ImagePositionPatient=[-20.25, 13.0, 53.125]), r"0004\.dcm: the slice is 1\.5 mm off"),
    "two echoes": (again(EchoTime="20"), r"holds 2 stacks.*folder of its own.*: echo 1, TE 20 ms: 0010\.dcm"),
    "one slice": (lambda images: images.__delitem__(slice(1, None)), r"the only image of the series"),
    "frames": (set_all(NumberOfFrames=2), r"2 frames, but no item for each"),
    "inverted": (set_all(PhotometricInterpretation="MONOCHROME1"), r"MONOCHROME1; expected 1, MONOCHROME2"),
    "sizes": (set_one(Rows=14), r"Rows is 28 in .*0000\.dcm and 14 in .*0004\.dcm"),
    "pixel sizes": (set_one(PixelSpacing=[1, 2]), r"PixelSpacing is .* and 1\.0\\2\.0 in .*0004\.dcm"),
    "orientations": (set_one(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), r"ImageOrientationPatient is .*0004\.dcm"),
    "patients": (set_one(PatientID="other"), r"PatientID is ID-1 in .* and other in .*0004\.dcm"),
    "no pixels": (without("PixelData"), r"0004\.dcm: no pixel data"),
    "no position": (without("ImagePositionPatient"), r"0004\.dcm: ImagePositionPatient is missing.*expected 3"),
    "no spacing": (set_all(PixelSpacing=None), r"PixelSpacing is missing or unreadable, expected 2 finite"),
    "spacing tiny": (set_all(PixelSpacing=["1e-9", "1e-9"]), r"PixelSpacing is .*expected two lengths from 0\.001 to"),
    "no unit vectors": (set_all(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), r"expected two unit vectors"),
    "slope not finite": (set_all(RescaleSlope="inf"), r"RescaleSlope is inf, expected 1 finite number"),
    "slope 0": (set_all(RescaleSlope=0, RescaleIntercept=0), r"RescaleSlope is 0"),
    "no study": (without("StudyInstanceUID"), r"0004\.dcm: StudyInstanceUID missing or no UID"),
    "compressed": (compressed, r"cannot be decoded.*JPEG Lossless.*pip install pylibjpeg"),
    "constant": (set_all(PixelData=bytes(2 * 32 * 28)), r"series .*: every voxel is 0"),
}  # fmt: skip
# Of the last file: without it a slice would be missing without a word.
DAMAGED = {
    "cut short": (lambda data: data[:-700], r"0009\.dcm: the pixel data cannot be decoded.*whole copy"),
    "cut in the header": (lambda data: data[:700], r"0009\.dcm: "),
    "text": (lambda data: b"no image", r"0009\.dcm: not a DICOM file, though its name says so"),
    "empty": (lambda data: b"", r"0009\.dcm: not a DICOM file"),
}


@pytest.mark.parametrize("name", [*UNCLEAN, *DAMAGED])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_unclean_series(refused, bundles, tmp_path, name):
    images = dicom.Series().images()
    if name in UNCLEAN:
        change, pattern = UNCLEAN[name]
        change(images)
        dicom.save(images, tmp_path / "in")
    else:
        change, pattern = DAMAGED[name]
        dicom.save(images, tmp_path / "in", change)
    refused(pattern, bundles / "udean_window")


def test_what_is_not_there(refused, bundles, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no image")
    refused(r"no DICOM file in it.*found notes\.txt", bundles / "udean_window")
    dicom.Series().save(tmp_path / "in")
    refused(r"expected the series 1\.2, found none.*\n.*t2 tse", bundles / "udean_window", "--series", "1.2")
    refused(r"expected the folder of one exported bundle", bundles / "none" / "udean_window")
    refused(r"takes no guide", bundles / "udean_window", "--guide", "1.2")
    for path in ("models/model.pt", "configs/inference.json"):
        spoilt = shutil.copytree(bundles / "udean_window", tmp_path / Path(path).stem / "udean_window") / path
        spoilt.write_bytes(spoilt.read_bytes()[:-500])
        refused(spoilt.name, spoilt.parents[1])


def test_process(bundles, tmp_path):
    """As MONAI Deploy starts it: paths from the environment; a failure ends the process with its message."""
    images = dicom.Series().images()
    for image in images:
        image.compress(RLELossless)  # lossless, and decoded without further packages
    dicom.save(images, tmp_path / "in")
    (tmp_path / "in" / "README").write_text("no DICOM")
    paths = {"HOLOSCAN_INPUT_PATH": tmp_path / "in", "HOLOSCAN_OUTPUT_PATH": tmp_path / "out"}
    done = run_process("--features", "12", HOLOSCAN_MODEL_PATH=bundles / "udean_window", **paths)
    assert done.returncode == 1 and re.search(r"error: .*features is 12, but", done.stderr), done.stderr
    assert not any((tmp_path / "out").iterdir())
    done = run_process(HOLOSCAN_MODEL_PATH=bundles / "udean_window", **paths)
    assert done.returncode == 0, done.stderr
    assert len(dicom.read(tmp_path / "out")) == 20
    assert run_process("--no_such_key", "1", "-m", bundles / "udean_window").returncode == 2


@pytest.fixture
def orthanc(tmp_path):
    """A running Orthanc: its DICOM and HTTP port, and the port where it sends what a client asks for."""
    with contextlib.ExitStack() as closed:  # again, when all ports are known
        free = [closed.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        dicom_port, http_port, client_port = ports = [server.getsockname()[1] for server in free]
    config = {
        "Name": "test", "StorageDirectory": str(tmp_path / "store"), "IndexDirectory": str(tmp_path / "store"),
        "Plugins": [], "DicomPort": dicom_port, "HttpPort": http_port, "DicomAet": "ORTHANC",
        "AuthenticationEnabled": False, "RemoteAccessAllowed": False,
        "DicomModalities": {"client": ["CLIENT", "127.0.0.1", client_port]},
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    with (tmp_path / "orthanc.log").open("w") as log:
        server = subprocess.Popen(["Orthanc", str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(["echoscu", "127.0.0.1", str(dicom_port)], capture_output=True).returncode:
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "orthanc.log").read_text()
                time.sleep(0.1)
            yield ports
        finally:
            server.terminate()
            server.wait(timeout=60)


def test_orthanc(orthanc, bundles, tmp_path):
    """From the archive by C-MOVE, through the application, back by C-STORE: the same study has one more series."""
    dicom_port, http_port, client_port = orthanc
    server = ["127.0.0.1", str(dicom_port)]

    def store(folder):
        subprocess.run(["storescu", "-aec", "ORTHANC", "+sd", "+r", *server, str(folder)], check=True, timeout=60)

    def fetch(study, folder):
        folder.mkdir()
        command = ["movescu", "-S", "-aet", "CLIENT", "-aec", "ORTHANC", "-aem", "CLIENT", "+P", str(client_port)]
        command += ["-od", str(folder), "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", *server]
        subprocess.run(command, check=True, timeout=60)
        return dicom.read(folder)

    attributes = {"StudyInstanceUID": generate_uid(prefix=None)}
    series = dicom.Series("sagittal", angles=(3, 4, -6), slopes=(0.5,), attributes=attributes)
    scan = series.save(tmp_path / "in" / "scan")
    other = dicom.Series(attributes=attributes).save(tmp_path / "in" / "other")
    store(tmp_path / "in")
    study = attributes["StudyInstanceUID"]
    assert len(fetch(study, tmp_path / "out")) == len(scan) + len(other)
    chosen = ["--series", scan[0].SeriesInstanceUID]
    done = run_process("-i", tmp_path / "out", "-o", tmp_path / "sr", "-m", bundles / "udean_window", *chosen)
    assert done.returncode == 0, done.stderr
    store(tmp_path / "sr")
    made = dicom.read(tmp_path / "sr")
    uids = {image.SOPInstanceUID for image in made}
    back = [image for image in fetch(study, tmp_path / "back") if image.SOPInstanceUID in uids]
    assert len(back) == len(made) == 2 * len(scan)
    for mine, theirs in zip(made, back, strict=True):
        np.testing.assert_array_equal(mine.pixel_array, theirs.pixel_array)
        assert mine == theirs
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/studies?expand") as answer:
        (found,) = json.load(answer)
    assert found["MainDicomTags"]["StudyInstanceUID"] == study and len(found["Series"]) == 3
