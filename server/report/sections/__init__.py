"""The sections of a trained model's report, each in one file.

registry.py           the sections that there are; another one is a file and a line there, or a call of `register`
patients.py                                who the patients are: Table 1
quality.py learning.py calibration.py      how good the model is
thresholds.py                              what follows for patients at stated thresholds
effects.py                                 what each column does in a linear model
privacy.py left.py rounds.py check.py      what protects patients, what left, who took part, digests
"""
