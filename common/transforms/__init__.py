"""Transforms that MONAI lacks."""

from .cascade_target import StageTargetd
from .ct import CheckThickSlicesd, HounsfieldWindowd, ResampleHRd, check_slice_factor
from .denoise import DenoiseSlicesd, estimate_noise
from .flips import RandFlipHRd
from .labels import CheckLabelsd
from .load_stacks import GuideStacksd, LoadStacksd, ResampleToFiled, ResampleToReferenced
from .make_stacks import MakeStacksd
from .measure_consistency import MeasureDataConsistencyd
from .registration.guide import ResampleGuided, ShiftGuided
from .registration.misalignment import RandMisalignd
from .registration.placement import find_misplacement
from .registration.register import RegisterHRd, RegisterLRd, register_guide
from .result_grid import ResampleResultd, choose_cubes
from .scan.acquired import AcquiredMatrixd
from .scan.check import CheckHeaderd, CheckMemoryd, CheckVoxelsd, ResizePlanesd
from .scan.interleaved import EvenSlicesd
from .scan.load import LoadScand
from .scan.modality import CheckMRd
from .scan.save import SaveVolumed, get_saver
from .scan.scan_statistics import CheckTrainingRanged, compute_scan_statistics, widen_range
from .scan.volume import MakeLRd, NormaliseVolumed, RestoreVolumed, SliceAxisd
