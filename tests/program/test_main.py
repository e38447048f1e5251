"""``python -m common``: what it lists, what of a command line it refuses before anything runs, and how it ends."""

import inspect
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from common import __main__
from common.program.cli_help import find_usage_problems, format_help, order_words
from common.weights.loading import compute_digest

from ..bundles.runs import save
from ..refused import has, refused

ROOT = Path(__file__).parents[2]


def take(source: str, output_dir: str | None = None, *, size: tuple[int, int] = (3, 4), dry: bool = False):
    """Take something.

    Args:
        source: what is taken, which is said here in more words than there is room for on one line of a terminal: it
            goes on.
        output_dir: where to.
        size: of it.
        dry: whether not to.

    Raises:
        ValueError: never.
    """


def give(output_dir: str, hr: str | None = None, **override):
    """Give something.

    Args:
        output_dir: where to.
        hr: pattern.
        override: keys.
    """


def test_what_does_not_fit_is_told():
    for function, line, *said in (
        (take, "a"),
        (take, "a b --size 1,2 --dry"),
        (take, "--source=-1 --nodry --output-dir b"),
        (take, "a --dry False --size=[1,2]"),
        (take, "a --siz 3,4", "--siz: there is no such option; did you mean --size?"),
        (take, "a b c d", "'c' belongs to no option; did you quote", "'d' belongs to no option; did you quote"),
        (take, "a --size 1,2 b", "'b' after --size belongs to no option; did you quote the pattern"),
        (take, "a --source b", "'a' belongs to no option"),
        (take, "--sorce b", "--sorce: there is no such option", "--source is missing."),
        (take, "a --size 3", "--size is 3, expected several, for example --size 3,4."),
        (take, "a --dry maybe", "--dry is 'maybe', expected True or False."),
        (take, "a --size --dry", "--size has no value."),
        (take, "", "--source is missing."),
        (take, "a --nosize", "--nosize: there is no such option"),
        (take, "--size 1,2 -- -a --trace"),
        (take, "-- a b c", "'c' belongs to no option"),
        (take, "--source=a -- b", "'b' belongs to no option"),
        (give, "a --loss#weight 3 --anything"),
        (give, "a b", "'b' belongs to no option"),  # of a command without * only what must be given
        (give, "--outputdir a", "--output_dir is missing."),
    ):
        found = find_usage_problems(function, line.split())
        assert len(found) == len(said) and all(map(str.__contains__, found, said)), (line, found)


def test_short_options_and_paths_in_any_order(tmp_path, monkeypatch):
    """A letter is the only option that begins with it; a path is none where a pattern may not have been quoted."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path(name).touch()

    def run(
        *paths,
        output_dir=None,
        guide=None,
        scale=None,
        subject=None,
        dry=False,
        together: bool | str = False,
        labels: tuple[str, ...] | None = None,
    ):
        pass

    for line, expected in {
        "a b -o out": "a b --output_dir out",
        "-o=out a b": "a b --output_dir=out",
        "-o out -d a new -g b": "a new --output_dir out --dry --guide b",
        "--together a b": "a b --together",
        "--together auto a": "a --together auto",
        "--dry false a": "a --dry false",
        "-d -- -a -o": "--dry -- -a -o",
        "--guide a b": "--guide a b",
        "-s 2 a": "a -s 2",
        "a --dry yes": "a --dry yes",
        "a --labels 01 b 02 -d": "a --labels=01,b,02 --dry",
        "a --labels=01 02": "a --labels=01,02",
    }.items():
        assert order_words(run, line.split()) == expected.split()
    assert find_usage_problems(run, ["a", "-s", "2"]) == [
        "-s: there is no such option; did you mean --scale or --subject?"
    ]
    assert "before the options" in find_usage_problems(run, ["--guide", "a", "b"])[0]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["a", "--size", "1,2", "--", "-T1 3D.nii"], ("a", "-T1 3D.nii", (1, 2))),
        (["--dry", "--", "--help", "--traceback"], ("--help", "--traceback", (3, 4))),
        (["--", "-h"], ("-h", None, (3, 4))),
    ],
)
def test_names_may_begin_with_a_dash(tmp_path, monkeypatch, words, expected):
    """After two dashes. Without these, the message says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(__main__, "get_command", lambda name: run)

    def run(source: str, output_dir: str | None = None, *, size: tuple[int, int] = (3, 4), dry: bool = False):
        found.append((source, output_dir, size))

    def run_all(*paths: str, dry: bool = False):
        found.append((*paths, dry))

    run.__annotations__ |= {"source": "str", "output_dir": "str | None"}
    found: list = []
    __main__.main(["take", *words])
    assert found == [expected]
    monkeypatch.setattr(__main__, "get_command", lambda name: run_all)
    __main__.main(["take", "--dry", "--", *words[words.index("--") + 1 :]])
    assert found[1] == (*words[words.index("--") + 1 :], True)
    (tmp_path / "-T1 3D.nii").touch()
    refused(lambda: __main__.main(["take", "-T1 3D.nii", "out"]), SystemExit, "-T1 3D.nii", "after --")


def test_true_and_false_are_values_in_any_case(monkeypatch):
    found: dict = {}
    monkeypatch.setattr(__main__, "get_command", lambda name: lambda **override: found.update(override))
    __main__.main(["take", "--one", "true", "--two=False", "--three", "FALSE", "--four", "trues"])
    assert found == {"one": True, "two": False, "three": False, "four": "trues"}


def test_help_is_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = format_help(take, "python -m common take")
    assert text.startswith("python -m common take SOURCE [OUTPUT_DIR] [options]\n\nTake something.\n")
    assert "more words than there is room for on one line of a terminal: it goes on." in " ".join(text.split())
    assert "\n  --size  (3,4)\n      of it.\n" in text and "--dry, -d  (false)" in text and "Raises" not in text
    assert max(map(len, text.splitlines())) < 80
    assert "\n  --<any key>\n      keys.\n" in format_help(give, "give")


def test_commands_are_listed_without_being_imported():
    """And OpenMP's threads are told to wait without spinning before torch is there."""
    code = "from common.__main__ import main, os, sys\nmain([])\n"
    code += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    listed = [line.split() for line in said.splitlines()[2:]]
    assert listed.pop() == ["passive", "False"] and all(len(words) > 3 for words in listed)
    modules = ROOT.glob("common/program/commands/[a-z]*.py")
    assert [words[0] for words in listed] == sorted(path.stem.replace("_", "-") for path in modules)


@pytest.mark.parametrize("name", sorted(__main__.read_summaries()))
def test_every_command_has_help_for_each_argument_and_the_same_options(name, capsys, monkeypatch):
    """-o names the output, --quiet prints nothing but warnings, --device is known where a network runs."""
    __main__.main([name, "--help"])
    text = capsys.readouterr().out
    assert not re.search(r"``|:\w+:`|^ *\.\. ", text, re.MULTILINE), "markup"
    lines = text.splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert options and all(lines[i + 1].startswith("      ") for i in options), lines
    function = __main__.get_command(name)
    taken = inspect.signature(function).parameters
    outputs = [f"--{key}" for key in taken if key in ("output", "output_dir")]
    assert [line.split(",")[0].strip() for line in lines if re.match(r"  --\w+, -o\b", line)] == outputs
    assert order_words(function, ["-o", "x"]) == [*(outputs or ["-o"]), "x"] or name == "bundle"
    known = name in ("ablate", "demo", "profile", "super-resolve")
    assert ("device" in taken, "\n  --device" in text) == (known, known) and "\n  --quiet, -q  (false)\n" in text
    if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        refused(lambda: __main__.main([name, "--deviec", "x"]), SystemExit, "--deviec: there is no such option", name)
    named = [each for each in taken.values() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    given = [f"--{each.name}=x" for each in named if each.default is each.empty]

    def speak(*args, **options):
        print("done")
        warnings.warn("look", UserWarning, stacklevel=1)

    speak.__signature__, speak.__annotations__ = inspect.signature(function), function.__annotations__
    monkeypatch.setattr(__main__, "get_command", lambda name: speak)
    monkeypatch.setattr(__main__, "find_wrong_values", lambda name, words: [])  # each is x
    for words, said in (([], "done\n"), (["--quiet"], ""), (["-q"], ""), (["--quiet", "false"], "done\n")):
        if "quiet" not in taken:  # which does it itself
            __main__.main([name, *words, *given])
            assert capsys.readouterr() == (said, "warning: look\n")


def test_text_that_looks_like_a_number_stays_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    refused(lambda: __main__.main(["datalist", "2024"]), SystemExit, "no --hr and no --lr pattern")


def test_how_it_ends(tmp_path, monkeypatch, capsys):
    """With one message: the traceback is printed when asked for, and kept in a file where the error is no own one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def end(error, *words):
        monkeypatch.setattr(__main__, "get_command", lambda name: Mock(side_effect=error))
        with pytest.raises(SystemExit) as stop:
            __main__.main(["anything", *words])
        return stop.value.code

    assert end(KeyboardInterrupt()) == 130 and capsys.readouterr().err == "\ninterrupted\n"
    assert end(KeyboardInterrupt("; go on")) == 130 and capsys.readouterr().err == "\ninterrupted; go on\n"
    assert not list(tmp_path.iterdir())
    said = end(TypeError("no list"))
    (log,) = tmp_path.iterdir()
    assert said == f"error: TypeError: no list\nThe traceback is in {log}; --traceback True prints it."
    assert "Traceback" in log.read_text() and "no list" in log.read_text()
    for words in (["--traceback"], ["--traceback", "true"], ["--traceback=true"]):
        assert end(ValueError("no list"), *words) == "error: no list"
        assert "Traceback" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [log]
    assert "--traceback" not in end(ValueError("x"), "--traceback", "false").partition("\n")[0]


def test_a_name_that_is_no_utf8_stops_nothing(tmp_path, capsys):
    for name in (b"a", b"m\xfcller", b"z"):
        save(
            tmp_path / os.fsdecode(name + b".nii.gz"),
            np.arange(8000, dtype=np.int16).reshape(20, 20, 20),
            np.diag([1.5, 1.5, 1.5, 1]),
        )
    __main__.main(["super-resolve", str(tmp_path), "--bundle", "zssr", "--dry_run"])
    has(capsys.readouterr().out, "a_sr.nii.gz", "m\\udcfcller_sr.nii.gz", "z_sr.nii.gz")


# Each line as if it were a program's.
INSTALLED = """
import contextlib, io, json, sys
from mri_sr_bundles.common.__main__ import run_mri_sr
for line in sys.argv[1:]:
    said, sys.argv[1:] = io.StringIO(), line.split()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = run_mri_sr() or 0
        except SystemExit as stop:
            status = 1
            print(stop)
    print(json.dumps([status, said.getvalue()]))
"""


def test_installed_there_is_one_name_in_any_folder(tmp_path):
    """A command's name is the command, also where a folder has it too."""
    site, place = tmp_path / "site" / "mri_sr_bundles", tmp_path / "place"
    site.mkdir(parents=True)
    (place / "compare").mkdir(parents=True)
    for name in ("common", "bundles"):
        (site / name).symlink_to(ROOT / name, target_is_directory=True)
    options = {"cwd": place, "env": {**os.environ, "PYTHONPATH": str(site.parent)}, "text": True}
    lines = {
        "--version": (0, ["mri-sr-bundles 0.", "torch ", "monai "]),
        "--help": (0, ["mri-sr PATH", "\nmri-sr <command>", "  profile"]),
        "compar": (1, ["did you mean compare?"]),
        "bundle": (0, ["\nudean ", "\nzssr "]),
        "bundle udaen": (1, ["'udaen'", "did you mean udean?"]),
        "./compare": (1, ["compare", "DICOM"]),
        "datalist --dataset_dir . --h *": (1, ["did you mean --hr?", "mri-sr datalist --help"]),
        "profile --bundle bundles/udean": (1, ["mri-sr profile", "folder of the repository's README.md"]),
    }
    done = subprocess.run([sys.executable, "-c", INSTALLED, *lines], capture_output=True, check=True, **options)
    for printed, (expected, words) in zip(done.stdout.splitlines(), lines.values(), strict=True):
        status, said = json.loads(printed)
        has(said, *words)
        assert status == expected
    reader, writer = os.pipe()  # which nobody reads
    os.close(reader)
    code = "from mri_sr_bundles.common.__main__ import run_mri_sr; run_mri_sr()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], stdout=writer, stderr=subprocess.PIPE, **options)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


TINY = """
import torch

class Tiny(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.interpolate(x, scale_factor=(2, 2, 1))
"""


def test_installed_a_network_of_ones_own_is_found_in_the_folder_where_it_runs(tmp_path):
    site, place = tmp_path / "site" / "mri_sr_bundles", tmp_path / "place"
    site.mkdir(parents=True)
    place.mkdir()
    for name in ("common", "bundles"):
        (site / name).symlink_to(ROOT / name, target_is_directory=True)
    (place / "my_networks.py").write_text(TINY)
    torch.save({}, tmp_path / "model.pt")
    network = {"_target_": "my_networks.Tiny"}
    overlay = {"trained": {"bundle": "srcnn"}, "scale": [2, 2, 1], "digest": compute_digest({}), "network_def": network}
    (tmp_path / "model.json").write_text(json.dumps(overlay))
    scan = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((20, 20, 6)), np.diag([1, 1, 4.0, 1]))
    line = f"{scan} {tmp_path}/out --checkpoint {tmp_path}/model.pt --device cpu"
    options = {"env": {**os.environ, "PYTHONPATH": str(site.parent)}, "text": True, "capture_output": True}
    for cwd, expected, words in ((place, 0, ["1 done"]), (tmp_path, 1, ["of the module my_networks", "PYTHONPATH="])):
        done = subprocess.run([sys.executable, "-c", INSTALLED, line], cwd=cwd, check=True, **options)
        status, said = json.loads(done.stdout.splitlines()[-1])
        has(said, *words)
        assert status == expected


def test_what_the_command_line_can_refuse_it_refuses_before_torch_is_imported(tmp_path):
    (tmp_path / "scan.nii.gz").touch()
    scan = str(tmp_path / "scan.nii.gz")
    for words, text in (
        ([scan, "--gide", "x"], "did you mean --guide?"),
        ([scan, "--amp", "maybe"], "--amp is 'maybe'"),
        ([scan, "--bundle", "srcnn", "--adapt_iterations", "3"], "option of srcnn"),
        ([scan, "--bundle", "srcn"], "'srcn'"),
        ([scan, "--together", "x"], "'x'"),
        ([f"{scan}.gz"], "no such file"),
        (["compare", "--scan", f"{scan}.gz", "--result", scan, "--output", "x.png"], "no such file"),
    ):
        words = words if words[0] == "compare" else ["super-resolve", *words]
        code = (
            "import sys\nfrom common.__main__ import main\n"
            f"try: main({words})\n"
            "except SystemExit as error: print(error, 'torch' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert text in done.stdout and done.stdout.endswith("False\n"), done.stdout + done.stderr
