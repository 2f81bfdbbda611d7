"""UCI Heart Disease: 740 patients of four hospitals, one CSV file each.

Origin, licence and traps: README.md.
"""
