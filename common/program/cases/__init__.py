"""Cases run through the workflows of their bundles, with the overlays that mri-sr lays."""
