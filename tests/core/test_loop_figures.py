"""The access log, and what a loop takes: an operator is told what happened."""

import pytest

from fastmeta import _core

from .loop_kit import answer, instance_of, mark, once, packed, silence, until


def test_the_access_log(make_rig):
    """One record for each request: who, what, how it ended and how long it took."""
    rig = make_rig(once(lambda request: answer(mark(request))), settings={"access_log": 1}, on_miss=silence)
    guest = rig.guest("127.0.0.5")
    guest.get("/a?" + "x" * 300)
    rig.wait_stat("parked", 1)
    rig.put("127.0.0.5")
    body = guest.answer().body
    guest.get("/head", method="HEAD")
    assert guest.answer("HEAD").status == 200
    guest.send(b"bad\r\n\r\n")
    assert guest.answer().status == 400
    parked = rig.guest("127.0.0.6")
    parked.get("/parked")
    rig.wait_stat("parked", 1)
    until(lambda: len(rig.records()) == 3)
    parked.reset()
    first, head, bad, aborted = until(lambda: rig.records() if len(rig.records()) == 4 else None)
    assert first["scope"] == 1
    assert first["address"] == packed("127.0.0.5")
    assert first["instance_id"] == instance_of(1, "127.0.0.5")
    assert (first["method"], first["target"]) == ("GET", ("/a?" + "x" * 300)[:256])
    assert (first["status"], first["upstream_status"], first["bytes"]) == (200, 200, len(body))
    assert [record["whole"] for record in (first, head, bad, aborted)] == [True, True, True, False]
    assert first["total_us"] >= first["parked_us"] + first["upstream_us"] > 0
    assert first["parked_us"] > 0
    assert (head["method"], head["target"], head["status"], head["bytes"]) == ("HEAD", "/head", 200, 0)
    assert head["parked_us"] == 0
    assert (bad["status"], bad["method"], bad["upstream_status"], bad["instance_id"]) == (400, "", 0, "")
    assert (aborted["target"], aborted["status"], aborted["instance_id"]) == ("/parked", 0, "")
    assert aborted["total_us"] >= aborted["parked_us"] > 0


def test_settings_are_checked():
    """Unknown names and values out of bounds are refused."""
    for settings in ({"no_such": 1}, {"max_head": 1}, {"max_head": 1 << 40}):
        with pytest.raises(ValueError, match=r"no_such|max_head"):
            _core.Loop(settings)


def test_ids_that_could_split_a_head_are_refused(rig):
    """An id is 1 to 255 visible characters."""
    for instance in (" ", "a b", "a\r\nX-Tenant-ID: b", "\u00e4", "x" * 256, "a\0"):
        with pytest.raises(ValueError, match="visible"):
            rig.put("127.0.0.1", instance=instance)
    rig.put("127.0.0.1", instance="x" * 255)
    assert rig.ask("/").body.split()[0] == b"x" * 255
