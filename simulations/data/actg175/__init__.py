"""AIDS Clinical Trials Group Study 175: 2,139 patients in four made hospitals, one CSV file each.

Origin, licence and traps: README.md.
"""
