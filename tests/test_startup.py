import subprocess
import sys

QUICKLY = """
import sys
from common.startup import import_monai
import_monai()
import common.data, common.engines, common.handlers, common.inferers, common.transforms
print([name for name in ("matplotlib", "pandas", "sklearn") if name in sys.modules])
import matplotlib.figure, pandas, skimage.filters, sklearn.metrics
from common.reports import case_figure
from monai.bundle import ConfigWorkflow
print(ConfigWorkflow.__name__, None in sys.modules.values())
"""


def test_inference_loads_nothing_that_it_does_not_need_and_what_was_left_out_can_be_imported_afterwards():
    said = subprocess.check_output([sys.executable, "-c", QUICKLY], text=True)
    assert said.splitlines()[-2:] == ["[]", "ConfigWorkflow False"]
