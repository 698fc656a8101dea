"""The path of a call: from a request to a reply, written once for sync and async."""

from __future__ import annotations

from moim.flow.call import Call, Handle, Prepared, complete, events

__all__ = ["Call", "Handle", "Prepared", "complete", "events"]
