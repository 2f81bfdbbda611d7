"""Made-up brains of four hospitals, for studies of segmentation (make_up.py)."""
