"""The coordinator's own error codes.

They stand beside those that a hospital sends (client/egress.py, configs/wire.py).
"""

BAD_SEAL = 150  # a reply that is not what its hospital signed, or breaks its form
BROKEN_REPLY = 151  # a reply that is no message
REVOKED = 152
NOT_REACHED = 153  # a proposal did not get to its hospital
OWN_CODES = frozenset({BAD_SEAL, REVOKED, NOT_REACHED})  # which no hospital may send
