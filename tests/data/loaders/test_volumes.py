"""Volumes in memory: when they are read, and what may be missing."""

import torch

from common.data import VolumeCache
from tests.refused import refused


def test_volumes_are_read_once_when_they_are_asked_for_and_again_when_forgotten():
    read = []

    def transform(entry):
        read.append(entry["name"])
        return {"hr": torch.full((1, 2, 2, 2), len(read))}

    volumes = VolumeCache([{"name": "a"}, {"name": "b"}], transform, ["hr", "guide"], allow_missing_keys=True)
    assert len(volumes) == 2 and not read
    assert [item["hr"].max() for item in volumes.volumes] == [1, 2] and volumes[1].keys() == {"hr"} and len(read) == 2
    volumes.forget()
    assert volumes[0]["hr"].max() == 3 and read == ["a", "b"] * 2
    refused(lambda: VolumeCache(volumes.data, transform, ["guide"]).volumes, ValueError, "guide")
