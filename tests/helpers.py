"""What tests of many modules share."""

from fireworks.testing import assert_same_messages
from fireworks.testing import check_resume as assert_resumable

__all__ = ["assert_resumable", "assert_same_messages"]
