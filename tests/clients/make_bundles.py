"""``python -m tests.clients.make_bundles FOLDER``: bundles like no other, tiny, exported with random weights."""

import sys
import tempfile
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from common.commands.export import export
from tests.bundles import runs


def main(folder: str) -> None:
    for bundle in runs.FORMS:
        parser = ConfigParser()
        parser.read_config(runs.configs(bundle, "inference"))
        parser.update(runs.TINY[bundle].network)
        torch.manual_seed(0)
        network = parser.get_parsed_content("network_def")
        with torch.no_grad():
            for parameter in network.parameters():  # many begin at 0, where the network would only interpolate
                parameter += 0.01 * torch.randn_like(parameter)
        with tempfile.TemporaryDirectory() as temporary:
            weights = Path(temporary) / "model.pt"
            torch.save(network.state_dict(), weights)
            export(str(runs.ROOT / "bundles" / bundle), folder, str(weights), **runs.TINY[bundle].network)


if __name__ == "__main__":
    main(*sys.argv[1:])
