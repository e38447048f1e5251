"""What a process loads before it begins."""

import subprocess
import sys

QUICKLY = """
import sys
from common.startup import import_monai
import_monai()
heavy = ["matplotlib", "pandas", "sklearn"]
import common.data, common.engines, common.handlers, common.inferers, common.transforms
print([name for name in heavy if name in sys.modules])
import matplotlib.figure, pandas, skimage.filters, sklearn.metrics
from common.reports import case_figure
from monai.bundle import ConfigWorkflow
print(ConfigWorkflow.__name__, None in sys.modules.values())
"""


def test_inference_loads_nothing_that_it_does_not_need():
    """What MONAI was not given can be imported afterwards, by whoever needs it."""
    done = subprocess.run([sys.executable, "-c", QUICKLY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[]", "ConfigWorkflow False"]
