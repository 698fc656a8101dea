from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ServerError, StreamBroken
from moim.testing.strategies import interleave, parallel_replies, replies
from moim.types import (
    ArgsDelta,
    Audio,
    AudioDelta,
    ChoiceEnd,
    Failed,
    Finish,
    Folder,
    PartEnd,
    PartStart,
    Reasoning,
    Reply,
    SignatureDelta,
    Source,
    Start,
    Text,
    TextDelta,
    ToolCall,
    Usage,
    UsageSeen,
    fold,
    unfold,
)


@given(replies())
def test_a_reply_is_the_fold_of_its_events(reply):
    assert fold(unfold(reply)) == reply


@given(replies(), st.randoms(use_true_random=False))
def test_a_folder_takes_events_in_batches_of_any_size(reply, random):
    events = list(unfold(reply))
    folder = Folder()
    while events:
        size = random.randrange(1, len(events) + 1)
        folder.feed(events[:size])
        events = events[size:]
    assert folder.finished
    assert folder.reply() == reply


@given(parallel_replies(), st.randoms(use_true_random=False))
def test_parts_may_grow_side_by_side(reply, random):
    assert fold(interleave(reply, random)) == reply


@given(replies())
def test_replies_are_plain_values(reply):
    assert pickle.loads(pickle.dumps(reply)) == reply
    again = msgspec.json.decode(msgspec.json.encode(reply), type=Reply)
    assert fold(unfold(again)) == reply


@given(replies(), st.randoms(use_true_random=False))
def test_events_without_their_end_are_no_reply(reply, random):
    events = list(unfold(reply))[:-1]
    cut = events[: random.randrange(len(events) + 1)]
    with pytest.raises(StreamBroken):
        fold(cut)
    folder = Folder()
    folder.feed(cut)
    assert not folder.finished
    assert folder.so_far().finish_reason is None


def test_a_failure_is_raised_and_what_came_is_kept():
    error = ServerError("broke")
    folder = Folder()
    folder.feed([Start("x"), PartStart(0, Text("")), TextDelta(0, "so far"), Failed(error)])
    with pytest.raises(ServerError) as caught:
        folder.reply()
    assert caught.value is error
    assert folder.so_far().text == "so far"


def test_the_last_count_stays_also_of_a_broken_stream():
    folder = Folder()
    folder.feed([UsageSeen(Usage(input_tokens=1)), UsageSeen(Usage(output_tokens=2))])
    assert folder.usage == Usage(output_tokens=2)


def test_state_and_sound_join_their_part():
    reply = fold(
        [
            PartStart(0, Reasoning("a")),
            SignatureDelta(0, "seal"),
            SignatureDelta(0, None, "opaque"),
            PartStart(1, Audio(Source(data=b"a", media_type="audio/wav"))),
            AudioDelta(1, b"b"),
            TextDelta(1, "heard"),
            PartStart(2, ToolCall("c", "f", "[")),
            ArgsDelta(2, "]"),
            PartEnd(2, {"openai_chat": {"x": 1}}),
            ChoiceEnd(1, "stop", "stop"),
            Finish("tool_calls"),
        ]
    )
    thought, sound, call = reply.parts
    assert (thought.text, thought.signature, thought.opaque) == ("a", "seal", "opaque")
    assert (sound.source.data, sound.transcript) == (b"ab", "heard")
    assert (call.arguments, call.native) == ("[]", {"openai_chat": {"x": 1}})
    assert reply.alternatives[0].finish_reason == "stop"


def test_deltas_of_parts_that_never_began_are_nothing():
    assert fold([TextDelta(3, "?"), ArgsDelta(4, "?"), Finish("stop")]).parts == ()
