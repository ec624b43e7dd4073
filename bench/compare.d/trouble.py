"""What can go wrong, as sentences that say what to do next."""


class Trouble(Exception):
    """One row cannot be measured; the others may be."""


class Unusable(Exception):
    """Nothing can be measured here."""
