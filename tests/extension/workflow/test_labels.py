"""Which segment is which label: by tag, by name, and never by guess."""

from __future__ import annotations

from Rep3DLabelLib.labels import SegmentName, assign, segment_id

LABELS = {"left kidney": 2, "liver": 6}


def test_the_tag_says_it_whatever_the_name_has_become() -> None:
    assert assign([SegmentName("a", "Leber", "liver")], LABELS).values == {"a": 6}


def test_a_segment_of_the_users_own_is_known_by_its_name() -> None:
    found = assign([SegmentName("a", "  Left   Kidney "), SegmentName("b", "LIVER")], LABELS)
    assert found.values == {"a": 2, "b": 6}


def test_a_segment_renamed_to_another_label_is_a_conflict() -> None:
    segment = SegmentName("a", "left kidney", "liver")
    found = assign([segment], LABELS)
    assert found.values == {} and found.conflicts == (segment,) and found.problems == (segment,)


def test_others_are_unknown_also_with_the_tag_of_another_server() -> None:
    segments = [SegmentName("a", "vessel"), SegmentName("b", "aorta", "aorta")]
    assert assign(segments, LABELS).unknown == tuple(segments)


def test_two_segments_may_be_one_label() -> None:
    assert assign([SegmentName("a", "liver"), SegmentName("b", "x", "liver")], LABELS).values == {"a": 6, "b": 6}


def test_ids_follow_values() -> None:
    assert segment_id(6) == "rep3d_6"
