"""What holds for every test."""

from hypothesis import settings

# A machine that is busy is slow, and that is no bug; a failure prints what reproduces it anywhere.
settings.register_profile("attlas", deadline=None, print_blob=True)
settings.load_profile("attlas")
