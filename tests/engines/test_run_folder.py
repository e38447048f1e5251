"""The folder of a training: another run is left alone."""

import pytest

from common.engines import RunFolder
from tests.refused import refused


@pytest.mark.parametrize(
    ("files", "options", "found"),
    [
        ([], {}, None),
        (["data/dataset.json", "table.json", "models/kernels/kernels_1.json", "losses.png"], {}, None),
        (["history.jsonl"], {}, "history.jsonl"),
        (["models/training_state.pt"], {}, "training_state.pt"),
        (["history.jsonl", "models/training_state.pt", "models/model.pt"], {}, "history.jsonl, training_state.pt, mod"),
        (["models/model.pt"], {}, "model.pt"),
        # Stage 2 goes on from what stage 1 has left, and is not begun twice.
        (["history_1.jsonl", "models/model.pt"], {"stage": 2, "writes_model": False}, None),
        (["models/training_state_1.pt", "models/model.pt"], {"stage": 2, "writes_model": False}, None),
        (["models/training_state_2.pt"], {"stage": 1}, "training_state_2.pt"),
        (["history_kernels_12.jsonl"], {"stage": "*"}, "history_kernels_12.jsonl"),
        (["models/training_state_edsr.pt"], {"stage": "*"}, "training_state_edsr.pt"),
    ],
)
def test_a_folder_with_another_run_is_refused(tmp_path, files, options, found):
    """Also where weights are of no run: there is nothing to continue, and a run begun anew would replace them."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()

    def begin(resume, overwrite):
        writes_model = options.get("writes_model", True)
        folder = RunFolder(tmp_path, None, resume, overwrite).select_stage(options.get("stage"))
        folder.check_overwriting(writes_model)

    begin(False, True)
    if found is None:
        begin(False, False)
    else:
        refused(lambda: begin(False, False), FileExistsError, tmp_path, found, "--resume True", "--overwrite True")
    if files == ["models/model.pt"]:
        words = [f"{tmp_path}/models holds model.pt, but no run", "--overwrite True"]
        refused(lambda: begin(True, False), FileExistsError, *words)
    else:
        begin(True, False)
    refused(lambda: begin(True, True), ValueError, "resume", "overwrite")
    refused(lambda: RunFolder(tmp_path, minutes=0), ValueError, "minutes is 0", "above 0")
