"""Which files are scans, by their names, headers and sidecars, and which cannot be read as they are."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.data.lists.scan_kinds import explain_exclusion, explain_unreadable

SCANS = """sub-01_T1w.nii.gz mask01_T1w.nii head_labelled.nii T1_masked.nii t1_without_mask.nii sub-mask_T1w.nii
    damask_t1.nii label_study_t1.nii msseg_01_flair.nii anat_mask_removed.nii brainmask.mgz
    sub-01_part-mag_T1w.nii sub-01_UNIT1.nii liver_arterial_phase.nii phase_3_t1.nii scan_ct_guided.nii
    ct01_t1.nii unmasked.nii nomask.nii atlas_t1.nii scaled+tlrc.HEAD a.nrrd c1_t1.nii fa_t1.nii real_t1.nii
     dixon_in_phase.nii t1_opp_phase_2mm.nii sub_p.nii swi_sw_m_ffe.nii t2_cr.nii sub_p_t1.nii sub-fa_T1w.nii
     head_md.nii t1_fa_30.nii dwi_b1000.nii map01_t1.nii rawavg.mgz orig_nu.mgz brainmask.auto.mgz
     brain.finalsurfs.mgz synthSR.mgz mode01_bias_corrected.mgz T2.prenorm.mgz T1_biascorr_brain.nii
     T1_fast_restore.nii T1_to_MNI_nonlin.nii T1_roi.nii mt1.nii wmt1.nii wmsub-01_T1w.nii
     subBrainSegmentation0N4.nii subExtractedBrain0N4.nii subBrainNormalizedToTemplate.nii subWarped.nii
     T1_N4BiasFieldCorrected.nii t1_bias_field_corrected.nii t1_no_bias.nii sub-01_desc-N4bias_T1w.nii
     T1w_acpc_dc_restore_brain.nii T1w_restore.2.nii template2anat.nii PAM50_t2s.nii sub-01_dwiref.nii
     BraTS-GLI-1-000-t2f.nii anatQQ.FT+tlrc.HEAD sub-01_T2w_restore_brain.nii zero_filled_t1.nii
     lesion_filled_t1.nii t1_slice_thickness_5mm.nii slice_thickness.nii low_field.nii lumbar_discs.nii
     posterior_fossa.nii con_t1.nii y_t1.nii level3_t1.nii p0_t1.nii jac_t1.nii rp1t1.nii wp1_t1.nii t2_right.nii
     mip_t1.nii sub-mip_T1w.nii mipav.nii t1_sub_01.nii t1_sub1.nii ff_t1.nii t1_r2.nii t2star.nii 18_WATER.nii
     8_dwi_TRACEW.nii 15_MPR_Range_tra.nii 6_T2_Eq_1.nii 11_MoCoSeries.nii 9_T1_ROI1.nii projection_t1.nii"""
OTHERS = """sub-01_mask.nii.gz brain_mask_1.nii sub-01_dseg.nii T1_brain_mask.nii T1_seg.nii.gz t1.seg.nrrd
    x-label.nrrd aparc+aseg.mgz lh.ribbon.mgz brainmask.nii sub-01_T2w_seg-manual.nii
    sub-01_label-GM_probseg.nii c1sub-01_T1w.nii wm.mgz labelsTr/a.nii.gz sub-01_part-phase_T1w.nii
    sub-01_phasediff.nii fmap_ph.nii gre_phase.nii sub-01_T1map.nii sub-01_T2w_gmseg.nii
    sub-01_T2w_lesion-manual.nii dwi_adc.nii sub-01_part-imag_bold.nii zstat1.nii spmT_0001.nii
    sub-01_pet.nii head_ct_0p7mm.nii.gz dti_FA.nii dti_L1.nii adc_map.nii ADC_b1000.nii cbf.nii swi_pha.nii
     gre_e2_ph.nii gre_phase_e2.nii 12_Pha_Images.nii swi_SW_P_FFE.nii b0_P_FFE.nii phase_map.nii velocity.nii
     gre_imaginary_e1.nii real_image.nii gre_real.nii suv.nii T1Mask.nii c1t1_masked.nii aseg.presurf.hypos.mgz
     aseg.auto_noCCseg.mgz wm.asegedit.mgz filled-pretess127.mgz ctrl_pts.mgz entowm.mgz surface.defects.mgz
     mri_nu_correct.mni.log_field.mgz synthseg.rca.mgz lh.hippoAmygLabels-T1.v22.FSvoxelSpace.mgz
     ThalamicNuclei.v13.T1.mgz T1_fast_bias_vol2.nii T1_fast_totbias.nii T1_fast_mixeltype.nii T1_fast_pve_0.nii
     T1_biascorr_bet_skull.nii T1_brain_mask2.nii T1_nonlin_jac.nii T1_nonlin_field.nii T1_nonlin_coeff.nii
     lesionmaskinv.nii zfstat1.nii cope1.nii tfce_corrp_tstat1.nii mwp1t1.nii m0wp1t1.nii mri/p0t1_masked.nii
     wj_t1_masked.nii BiasField_t1.nii Template_6.nii beta_0001.nii con_0001.nii ResMS.nii RPV.nii
     subBrainSegmentation.nii subBrainSegmentationPosteriors1.nii subSubjectToTemplateLogJacobian.nii
     subCorticalThicknessNormalizedToTemplate.nii sub0InverseWarp.nii sub-A_T1w_segm-csf_dartelinput.nii
     sub-A_T1w_segm-csf_space-Ixi549Space_modulated-off_probability.nii t2_seg_labeled_discs.nii t2_seg_labeled.nii
     t2_centerline.nii PAM50_wm.nii PAM50_atlas_00.nii warp_template2anat.nii dmri_MD.nii mtr.nii
     BiasField_acpc_dc.nii T1wDividedByT2w.nii sub-01_T1wdividedbyT2w.nii brainmask_fs.nii NonlinearRegJacobians.nii
     sub-01_model-tensor_param-fa_dwimap.nii sub-01_T2w_label-discs_dlabel.nii TSNR.FT+tlrc.HEAD rCBF.nii
     BraTS-GLI-1-000-mask-unhealthy.nii LabelMapVolume.nrrd gt_segmentations/a.nii step2_output/a.nii wc1anon.nii
     mwmwp1t1.nii mwp1002_S_0413.nii smwp2_subj.nii rp1t1_masked_affine.nii
     xfms/acpc_dc2standard.nii warp.to.mni152.1.0mm.inv.nii 18_FAT_FRACTION.nii FatFrac_Ax.nii t1_PDFF_e2.nii
     tra_bh_FF.nii R2star_Images.nii T2map_cor.nii relCBF_3.nii t1_SUB.nii dyn_subtraction_2.nii SUB_MIP_tra.nii
     7_mIP_Images_SW.nii 16_TOF_MIP_cor.nii mip.nii t1_minIP.nii MNIP_swi.nii max_intensity_projection_t1.nii"""


def image(path, intent="none", shape=(3, 3, 3), **sidecar):
    volume = nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4))
    volume.header.set_intent(intent, allow_unknown=True)
    path.parent.mkdir(exist_ok=True)
    nib.save(volume, path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


@pytest.mark.parametrize("names, are", [(SCANS, True), (OTHERS, False)])
def test_names(tmp_path, names, are):
    (tmp_path / "t1_masked.nii").touch()
    for name in names.split():
        assert (explain_exclusion(tmp_path / name) is None) == are, name
        assert are or "by its" in explain_exclusion(tmp_path / name)


@pytest.mark.parametrize(
    "intent, sidecar, why",
    [
        ("none", {}, None),
        (2001, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"], "Modality": "MR", "Units": "arbitrary"}, None),
        ("none", {"ImageType": 5, "Modality": ["MR", None], "Units": {}, "ComplexImageComponent": []}, None),
        ("label", {}, "label map, by the intent code"),
        ("z score", {}, "z score"),
        ("p value", {}, "p value"),
        ("displacement vector", {}, "displacement"),
        ("none", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ("none", {"ImageType": "DERIVED\\PRIMARY\\ADC"}, "map"),
        ("none", {"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "projection"),
        ("none", {"ImageType": ["ORIGINAL", "PRIMARY", "SW_P_FFE", "SW_P", "FFE"]}, "phase"),
        ("none", {"ImageType": ["ORIGINAL", "PRIMARY", "T1", "NONE", "IMAGINARY"]}, "real or imaginary"),
        ("none", {"ImageTypeText": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ("none", {"ComplexImageComponent": "REAL"}, "real or imaginary"),
        ("none", {"ComplexImageComponent": "MIXED", "ImageType": ["ORIGINAL", "PRIMARY", "SW_M_FFE", "SW_M"]}, None),
        ("none", {"Units": "Hz"}, "phase"),
        ("none", {"Units": "ms"}, "a map"),
        ("none", {"Modality": "", "Units": " ", "ImageType": [""], "TracerName": ""}, None),
        ("none", {"TracerName": "FDG"}, "a PET"),
        ("none", {"Modality": "PT"}, "a PET, by its sidecar"),
        ("none", {"Modality": "CT"}, "a CT"),
        ("none", {"shape": (500, 1, 1)}, "a surface"),
        ("none", {"shape": (1, 1, 1, 1, 2, 9)}, "a surface"),
        ("none", {"shape": (3, 3, 3, 1, 3)}, "vectors"),
        ("none", {"shape": (3, 3, 3, 1)}, None),
    ],
)
def test_headers_and_sidecars(tmp_path, intent, sidecar, why):
    path = image(tmp_path / "a.nii", intent, **sidecar)
    reason = explain_exclusion(path)
    assert (reason is None) if why is None else (why in reason)
    assert (explain_exclusion(path, ct=True) is None) == (why in (None, "a CT"))


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    (tmp_path / "lfs.nii").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "unlocked.nii.gz").write_text("/annex/objects/MD5E-s1--x.nii.gz\n")
    (tmp_path / "locked.nii.gz").symlink_to("../.git/annex/objects/x")
    (tmp_path / "gone.mgz").symlink_to("nowhere")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    (tmp_path / "closed.dcm").symlink_to("/proc/self/mem")  # a file that cannot be read
    (tmp_path / "a.nii").touch()
    for name, *words in (
        ("lfs.nii", "git lfs pull"),
        ("unlocked.nii.gz", f"datalad get {tmp_path}/unlocked.nii.gz", "git annex get"),
        ("locked.nii.gz", "datalad get"),
        ("gone.mgz", "nowhere"),
        ("b.nii.bz2", "bunzip2"),
        ("b.MNC", "nib-convert"),
        ("2dseq", "Bruker"),
        ("1.IMA", "is none"),
        ("closed.dcm", "cannot be read (Input/output error)"),
        ("b+orig.BRIK.gz", ".HEAD"),
    ):
        assert all(word in explain_unreadable(tmp_path / name) for word in words), name
    assert explain_unreadable(tmp_path / "notes.txt") is None and explain_unreadable(tmp_path / "a.nii") is None
