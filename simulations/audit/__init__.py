"""`archipel audit`: does the training code protect patients as its ledger claims?

It has five parts, each with a verdict. The very objects that train (Trainer, Site, engine, Randomness, Ledger) are
watched while they work; what they ought to do is computed here again, by other means. An audit looks for mistakes: it
proves none absent.
"""
