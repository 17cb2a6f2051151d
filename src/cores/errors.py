"""What can go wrong, by whose hand and at which step. Every message says what to do next.

CoresError
├── UserError (also ValueError)  the user's mistake; the command line exits with 2
│   ├── DataError                a file of data or a picture cannot be used
│   ├── RecipeError              a setting does not exist or does not fit
│   └── CheckpointError          weights, tokens or config do not fit each other
└── CheckFailed                  a comparison ran and failed; the command line exits with 1
"""


class CoresError(Exception):
    """Base of every error that this library raises on purpose."""


class UserError(CoresError, ValueError):
    """Something that the caller gave cannot be used."""


class DataError(UserError):
    """A picture, mask or annotation cannot be used."""


class RecipeError(UserError):
    """A setting does not exist or does not fit the others."""


class CheckpointError(UserError):
    """A checkpoint's weights, tokens or config do not fit each other."""


class CheckFailed(CoresError):
    """A check or comparison ran to its end and failed."""
