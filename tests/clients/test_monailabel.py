"""The MONAI Label app: the real server, asked by its own client, with the exported bundles in the folder BUNDLES."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from monailabel.client.client import MONAILabelClient, MONAILabelClientException

from .. import malformed
from ..bundles import runs, spoilt

APP = runs.ROOT / "common" / "program" / "apps" / "monailabel"
# A later version of udean_window, and another bundle of the same version, whose package has the same name.
MARKED = {"udean_next": ("udean_window_v9_0_0", "9.0.0"), "udean_twin": (None, None)}
STORED = ((runs.AFFINE, "RAS"), (runs.OBLIQUE, "SLA"))  # affines and axes of scans; those by dcm2niix have others
# In each Python that the server starts: where it connects to, or looks up, other than this machine.
WATCH = """
import sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[1] if event == "socket.connect" else args
        host = address[0] if isinstance(address, tuple) else address
        if host not in ("127.0.0.1", "localhost"):
            print(event, host, file=open({log!r}, "a"))

sys.addaudithook(watch)
print("watching", file=open({log!r}, "a"))
"""


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder, self.dist, self.studies = folder, folder / "dist", folder / "studies"
        self.scans: dict[str, list[Path]] = {}

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = start(self.folder, "--port", str(port))
        deadline = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                requests.get(f"{self.url}/info/", timeout=60)
                return
            except requests.ConnectionError:
                time.sleep(0.1)
        raise AssertionError(f"the server does not answer:\n{self.log}")

    def models(self) -> dict[str, dict]:
        return requests.get(f"{self.url}/info/", timeout=60).json()["models"]

    def infer(self, model: str, image: str, upload: Path | None = None, **params: object) -> nib.Nifti1Image:
        client = MONAILabelClient(self.url, tmpdir=str(self.folder))
        path, answer = client.infer(model, image, params, file=upload and str(upload))
        try:
            assert answer["version"] == self.models()[model]["version"]
            found = nib.load(path)
            return nib.Nifti1Image(np.asanyarray(found.dataobj), found.affine, found.header)
        finally:
            os.unlink(path)

    def refuses(self, status: int, pattern: str, model: str, image: str = "", upload: Path | None = None, **params):
        """Whether a request fails with this status and reason, which names no temporary file."""
        file = {"file": (upload.name, upload.read_bytes())} if upload else None
        data = {"params": json.dumps(params)}
        answer = requests.post(f"{self.url}/infer/{model}", params={"image": image}, data=data, files=file, timeout=60)
        assert answer.status_code == status, answer.text
        assert re.search(pattern, answer.json()["detail"]), answer.text
        assert str(self.folder / "tmp") not in answer.text


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    watch = folder / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH.format(log=str(folder / "connections.log")))
    (folder / "tmp").mkdir()
    shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__", "logs"))
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(watch),
        "TMPDIR": str(folder / "tmp"),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "OMP_NUM_THREADS": "1",
    }
    options = ["--app", "app", "--studies", "studies", "--host", "127.0.0.1", "--conf", "bundles", "dist", *arguments]
    command = [programs / "monailabel", "start_server", *options]
    with (folder / "server.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def bundles() -> Path:
    assert os.environ.get("BUNDLES"), "set BUNDLES to a folder of exported bundles (python -m common export)"
    return Path(os.environ["BUNDLES"])


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory) -> Server:
    """A server of bundles, of udean_window in another version and again in the same, and of some with bad weights."""
    folder = tmp_path_factory.mktemp("label")
    server = Server(folder)
    for name in runs.FORMS:
        shutil.copytree(bundles / name, server.dist / name)
        tiny, scans, subject = runs.TINY[name], folder / "scans" / name, name.replace("_", "")
        server.scans[name] = [
            tiny.save_lr(scans, f"{subject}{i}", runs.phantom(i), affine, axes=axes)
            for i, (affine, axes) in enumerate(STORED)
        ]
        for kind in ("thick", "enhanced"):  # DICOM series, by dcm2niix
            given, scan = bundles / "scans" / f"sub-{kind}", scans / f"{tiny.case(subject + kind)}.nii.gz"
            server.scans[name].append(shutil.copy(f"{given}_t2w.nii.gz", scan))
            if tiny.guided:
                shutil.copy(f"{given}_t1w.nii.gz", scans / f"sub-{subject}{kind}_t1w.nii.gz")
        shutil.copytree(scans, server.studies, dirs_exist_ok=True)
    udean = server.dist / "udean_window"
    for name, (package, version) in MARKED.items():
        mark(shutil.copytree(udean, server.dist / name), name, package, version)
    shutil.copytree(udean, server.dist / "broken", ignore=shutil.ignore_patterns("model.pt"))
    for n, (how, path) in enumerate(malformed.checkpoints(udean / "models" / "model.pt", folder)):
        if n < 10 and not how.startswith("bytes"):  # one of each kind; changed bytes may do no harm
            damaged = shutil.copytree(udean, server.dist / f"damaged_{n}", ignore=shutil.ignore_patterns("model.*"))
            shutil.copy(path, damaged / "models" / "model.pt")
    server.start()
    yield server
    server.process.send_signal(signal.SIGINT)
    server.process.wait(60)
    # MONAI Label itself leaves its log's configuration.
    assert [path for path in (folder / "tmp").iterdir() if path.suffix != ".json"] == []


def mark(bundle: Path, text: str, package: str | None, version: str | None) -> None:
    """Let a bundle's own code write a text into the headers of results; perhaps under another package's name."""
    if version is not None:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
        (bundle / "configs" / "metadata.json").write_text(json.dumps({**metadata, "version": version}))
    (old,) = (path.parent for path in bundle.glob("*/__init__.py"))
    save = old / "transforms" / "scan" / "save.py"
    source, line = save.read_text(), "write_image(image, path, description, window)"
    assert line in source
    save.write_text(source.replace(line, line.replace("description", repr(text))))
    if package:
        config = bundle / "configs" / "inference.json"
        config.write_text(config.read_text().replace(old.name, package))
        old.rename(bundle / package)


def same(found: nib.Nifti1Image, expected: nib.Nifti1Image) -> bool:
    """Whether voxels, data type, place, units and all else of two files are the same."""
    return found.header == expected.header and np.array_equal(np.asanyarray(found.dataobj), expected.dataobj)


@pytest.fixture(scope="module")
def own(server) -> dict[str, list[nib.Nifti1Image]]:
    """What an exported bundle itself makes of its scans, in a folder where the repository is not."""
    results = {}
    for name, scans in server.scans.items():
        out = server.folder / "own" / name
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
        command += ["--dataset_dir", str(scans[0].parent), "--output_dir", str(out)]
        done = subprocess.run(command, cwd=server.dist / name, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        results[name] = [nib.load(out / scan.name.replace(".nii.gz", "_sr.nii.gz")) for scan in scans]
    return results


def guide(name: str, scan: Path) -> dict[str, str]:
    tiny = runs.TINY[name]
    return {"guide": stem(scan).replace(tiny.contrast, "t1w")} if tiny.guided else {}


def stem(scan: Path) -> str:
    return scan.name.removesuffix(".nii.gz")


def test_info(server):
    """Every bundle that loads is listed with version and scale, as no segmentation; one that does not, in the log."""
    models = server.models()
    assert set(models) == {*runs.FORMS, *MARKED}
    for name, model in models.items():
        version = json.loads((server.dist / name / "configs" / "metadata.json").read_text())["version"]
        scale = list(runs.TINY["udean_window" if name in MARKED else name].degradation.factors)
        assert (model["type"], model["labels"], model["version"], model["scale"]) == ("others", [], version, scale)
        assert f"Version {version}, scale {' x '.join(map(str, scale))} " in model["description"]
    assert re.search(r"dist/broken is not served: there are no weights at .*model\.pt", server.log)


def test_same_as_the_bundle(server, own):
    """Whatever the stored form, by id and uploaded, repeated and at once: the file that the bundle itself makes."""
    wanted = [
        (name, scan, expected, by_id)
        for by_id in (True, False)
        for name, scans in server.scans.items()
        for scan, expected in zip(scans, own[name], strict=True)
    ]

    def ask(name, scan, expected, by_id):
        found = server.infer(name, stem(scan) if by_id else "", None if by_id else scan, **guide(name, scan))
        assert same(found, expected), f"{name} of {scan.name}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, *zip(*wanted, strict=True)))


def test_versions_do_not_mix(server, own):
    scan, expected = server.scans["udean_window"][1], own["udean_window"][1]
    unmarked = expected.header["descrip"].item()
    for name in ("udean_window", *MARKED, "udean_window", "udean_twin", "udean_next"):
        found = server.infer(name, stem(scan))
        assert found.header["descrip"].item() == (name.encode() if name in MARKED else unmarked)
        assert np.array_equal(np.asanyarray(found.dataobj), expected.dataobj)


def test_options(server, own):
    """Switches and axes of the config can be set for one request, and text that MONAI would evaluate is none."""
    scan, expected = server.scans["downsampling_gan"][0], own["downsampling_gan"][0]
    x, y, z = nib.load(scan).shape
    model = "downsampling_gan", stem(scan)
    assert server.infer(*model, slice_axis="LR", denoise_input="true").shape == (x, 2 * y, 2 * z)
    assert same(server.infer(*model, device="cpu", result_extension=".nrrd", result_dtype="uint8"), expected)
    for wrong in ("$open('evaluated', 'w')", "@bundle_root", "", 3):
        server.refuses(422, "slice_axis is .*, expected", *model, slice_axis=wrong)
    server.refuses(422, "slice_axis is 'XY', expected one of LR, AP, SI", *model, slice_axis="XY")
    server.refuses(422, "denoise_input is 'perhaps', expected True or False", *model, denoise_input="perhaps")
    assert not list(server.folder.rglob("evaluated"))
    assert same(server.infer(*model), expected)


def test_failures(server, own, tmp_path):
    patterns = spoilt.spoil(tmp_path / "spoilt", runs.phantom(0), "t1w")
    for path, pattern in patterns.items():
        server.refuses(422, f"^the upload: .*{pattern}", "udean_window", upload=path)
        shutil.copy(path, server.studies)
    deadline, seen = time.monotonic() + 60, set()  # until the server has seen the new files
    while time.monotonic() < deadline and not set(map(stem, patterns)) <= seen:
        seen = set(requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"])
    for path, pattern in patterns.items():
        server.refuses(422, f"^{stem(path)}: .*{pattern}", "udean_window", stem(path))
        os.unlink(server.studies / path.name)
    scan = {name: stem(scans[0]) for name, scans in server.scans.items()}
    for image in ("none", "1.2.840.113619.2.5", "../studies", str(server.scans["udean_window"][0]), ".", "\0"):
        server.refuses(404, "there is no image", "udean_window", image)
    assert requests.post(f"{server.url}/infer/udean?session_id=over", timeout=60).status_code == 404
    server.refuses(404, "there is no model 'none'; expected .*ct_guided, ", "none", scan["udean_window"])
    server.refuses(422, "needs a guide", "guided_rdn", scan["guided_rdn"])
    server.refuses(404, "there is no image 'none'", "guided_rdn", scan["guided_rdn"], guide="none")
    server.refuses(422, "takes no guide", "udean_window", scan["udean_window"], guide=scan["udean_window"])
    apart = f"^{scan['downsampling_gan']}: slices are .* apart"
    server.refuses(422, apart, "ct_guided", scan["downsampling_gan"], slice_axis="SI")
    server.refuses(422, "results are no labels", "udean_window", scan["udean_window"], save_label=True)
    files = [("files", (path.name, path.read_bytes())) for path in server.scans["udean_window"][:2]]
    session = requests.put(f"{server.url}/session/", files=files, timeout=60).json()["session_id"]
    answer = requests.post(f"{server.url}/infer/udean?session_id={session}", timeout=60)
    assert (answer.status_code, "a folder; expected one NIfTI file" in answer.text) == (422, True)
    with pytest.raises(MONAILabelClientException) as caught:
        server.infer("udean_window", "none")
    assert "there is no image 'none'" in caught.value.msg
    assert same(server.infer("udean_window", scan["udean_window"]), own["udean_window"][0])


def test_malformed(server, own, tmp_path):
    """Damaged volumes get a clear reason or a whole result; bundles with damaged weights are named, and not served."""
    scan, refused = server.scans["udean_window"][0], 0
    for path in malformed.niftis(scan, tmp_path):
        with path.open("rb") as file:
            answer = requests.post(f"{server.url}/infer/udean?output=image", files={"file": file}, timeout=60)
        if answer.status_code == 200:
            (tmp_path / "sr.nii.gz").write_bytes(answer.content)
            image = nib.load(tmp_path / "sr.nii.gz")
            assert np.isfinite(image.get_fdata()).all() and np.isfinite(image.affine).all(), path.name
        else:
            refused += 1
            reason = malformed.unclear(answer.json()["detail"], "the upload")
            assert (answer.status_code, reason) == (422, None), path.name
    assert refused > malformed.COUNT / 2
    for bundle in server.dist.glob("damaged_*"):
        (reason,) = re.findall(rf"{bundle.name} is not served: (.*)", server.log)
        assert malformed.unclear(reason, "model.pt") is None
    assert not (server.folder / "code_was_run").exists()
    assert same(server.infer("udean_window", stem(scan)), own["udean_window"][0])


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_nothing_left_behind(server, bundles):
    """After all these requests: no upload, no result, no label, no change of a bundle, and no connection elsewhere."""
    (own,) = (server.folder / "tmp").glob("monailabel-*")
    assert list(own.iterdir()) == []
    given = {path.name for scans in server.scans.values() for path in scans[0].parent.iterdir()}
    assert {path.name for path in files(server.studies)} - given <= {".lock", "datastore_v2.json"}
    for name in runs.FORMS:
        more = files(server.dist / name) - files(bundles / name)
        assert not [path for path in more if path.suffix != ".pyc"]
    assert set((server.folder / "connections.log").read_text().split("\n")) == {"watching", ""}


def test_nothing_to_serve(tmp_path):
    for name in ("empty", "exam"):
        (tmp_path / "dist" / name / "configs").mkdir(parents=True)
    (tmp_path / "dist" / "exam" / "configs" / "metadata.json").write_text('{"selection": {"fewest_stacks": 2}}')
    assert start(tmp_path).wait(120) != 0
    log = (tmp_path / "server.log").read_text()
    assert "dist/empty is not served: " in log and "dist/exam is not served: it takes several scans" in log
    assert "--conf bundles dist: no bundle in it loads; expected folders with configs/inference.json" in log
