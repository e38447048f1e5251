"""Validation in a training: what it leaves as it was."""

import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import PeakSignalToNoiseRatio, from_engine
from torch import nn
from torch.utils.data import DataLoader

from common.data import prepare_lr_hr
from common.engines import Player, RunFolder
from tests.engines.test_trainer import ADAM, l1, trainer_of


def test_what_a_training_draws_hangs_on_its_seed_alone(tmp_path):
    """Neither on what was drawn for first weights, nor on when volumes for validation were loaded."""

    def losses(drawn, resumed):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Dropout(0.5))
        torch.manual_seed(1)
        torch.rand(drawn)
        volumes = DataLoader([{"lr": torch.zeros(2, 4, 4), "hr": torch.zeros(2, 4, 4)}])
        players = {"up": Player(["up"], ADAM, {"l1": [1.0, l1, "back", "lr"]})}
        psnr = {"psnr": PeakSignalToNoiseRatio(1.0, output_transform=from_engine(["pred", "label"]))}
        for epochs in (1, 3) if resumed else (3,):
            how = {"prepare_batch": prepare_lr_hr, "inferer": lambda lr, network: network(lr), "key_val_metric": psnr}
            validator = SupervisedEvaluator("cpu", volumes, network, **how)
            trainer = trainer_of(
                players,
                {"up": network},
                2,
                {"back": ["up", "hr"]},
                epochs,
                validator=validator,
                network=network,
                run_folder=RunFolder(tmp_path / f"{drawn}{resumed}", resume=True),
            )
            trainer.run()
        lines = (tmp_path / f"{drawn}{resumed}" / "history.jsonl").read_text().splitlines()
        return [line for line in lines if "up/l1" in line]

    assert losses(0, False) == losses(5, False) == losses(0, True)
