"""Replies kept by this machine, so that the same question is paid for once."""
