"""Three made-up hospitals with OMOP Common Data Models of made-up patients, and one CSV extract of each.

How they are made, and what they are good for: README.md.
"""
