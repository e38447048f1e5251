"""``python -m tests.clients.make_bundles FOLDER``: bundles like no other, tiny, exported with random weights."""

import sys
import tempfile
from pathlib import Path

from common.commands.export import export
from tests.bundles import runs


def main(folder: str) -> None:
    for bundle in runs.FORMS:
        with tempfile.TemporaryDirectory() as temporary:
            weights = Path(temporary) / "model.pt"
            runs.save_weights(bundle, weights)
            export(str(runs.ROOT / "bundles" / bundle), folder, str(weights))


if __name__ == "__main__":
    main(*sys.argv[1:])
