"""One file a family of operations; importing this package registers them all."""

from ntkdiag.kernel.streaming.rules import (  # noqa: F401  (imported for their registrations)
    convolution,
    elementwise,
    embedding,
    joining,
    linear,
    normalisation,
)
