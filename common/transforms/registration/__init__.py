"""Registration of volumes of a subject, and simulated misalignment."""
