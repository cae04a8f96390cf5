"""The numbers of a screening, by hand: scores, closeness, the tail of ordinary rows, thresholds."""

import math
import random

import pytest
import torch

from safe_sft.screening.bulk import Bulk
from safe_sft.screening.closeness import Closeness
from safe_sft.screening.reasons import reasons
from safe_sft.screening.score import NATS_OF_CLOSENESS, RowScore, suspicion
from safe_sft.screening.threshold import expected, suggest


def test_a_row_is_suspicious_by_a_likely_refusal_an_unlikely_answer_and_a_request_that_reads_as_harmful():
    assert suspicion(math.log(0.5), math.log(4), 0.0) == pytest.approx(math.log(0.5 * 0.75))
    assert suspicion(-1.0, 50.0, 1.0) == pytest.approx(-1.0 + NATS_OF_CLOSENESS)
    assert suspicion(-20.0, 9.0, 0.0) < suspicion(-0.1, 0.01, 0.0) < suspicion(-0.1, 3.0, 0.0) < 0
    assert math.isfinite(suspicion(-0.1, 0.0, 0.0))
    assert suspicion(-12.0, 9.0, 0.0) < suspicion(-1.0, 2.0, 0.0)  # arithmetic that the model does not know


def test_closeness_is_one_for_the_median_of_the_safety_requests():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 400, 8, generator=generator)
    apart = torch.zeros(8)
    apart[3] = 4.0
    close = Closeness(noise[0] + apart, noise[1] - apart)
    assert close.of(torch.stack([apart, 0 * apart, -apart])) == pytest.approx([1.0, 0.0, -1.0], abs=0.1)
    assert torch.tensor(close.harmful).median() == pytest.approx(1.0, abs=0.05)
    assert close.of(100 * apart[None]) == [2.0]


def test_what_is_read_does_not_depend_on_where_the_states_lie_or_how_few_they_are():
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(3, 64, 200, generator=generator)  # fewer requests than dimensions
    apart = torch.zeros(200)
    apart[3] = 4.0
    for far in (0.0, 50.0):
        close = Closeness(noise[0] + apart + far, noise[1] - apart + far)
        assert sum(close.of(noise[2] + apart + far)) / 64 == pytest.approx(1.0, abs=0.3)
        assert sum(close.of(noise[2] - apart + far)) / 64 == pytest.approx(-1.0, abs=0.3)


def test_states_that_do_not_tell_the_two_apart_say_nothing_much():
    generator = torch.Generator().manual_seed(1)
    wins = sum(sum(Closeness(*torch.randn(2, 60, 100, generator=generator)).harmful) > 0 for _ in range(20))
    assert wins < 20  # read by the other half, noise is no sign of anything
    same = torch.randn(60, 4, generator=generator)
    assert Closeness(same, same).of(same) == [0.0] * 60


def normal(count, seed=0):
    generator = random.Random(seed)
    return [generator.gauss(0.0, 1.0) for _ in range(count)]


def test_the_bulk_tells_how_many_lie_above():
    bulk = Bulk.of(normal(20000))
    assert (bulk.middle, bulk.spread) == pytest.approx((0.0, 1.0), abs=0.05)
    assert bulk.above(3.0) == pytest.approx(27, rel=0.4)
    assert bulk.above(bulk.threshold(0.01)) == pytest.approx(0.01 * bulk.rows)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_poison_at_the_top_hardly_changes_the_bulk(share):
    bulk = Bulk.of([*normal(5000, 1), *[9.0] * round(5000 * share)])
    assert bulk.spread == pytest.approx(1.0, abs=0.06)
    assert bulk.rows == pytest.approx(5000, rel=0.02)


def test_few_rows_tell_nothing():
    assert Bulk.of(normal(50)) is None
    assert Bulk.of([1.0] * 1000) is None
    assert expected([0.0] * 10, 1.0).rows is None
    assert str(expected([0.0] * 10, 1.0)) == "not known"
    assert suggest([0.0] * 10, [-1.0 - i / 100 for i in range(100)]).value == pytest.approx(-1.94)


def test_the_suggestion_is_one_refusal_in_a_hundred_where_clean_rows_are_far():
    chosen = suggest([-40.0 + score for score in normal(2000)], [-float(i) / 100 for i in range(100)])
    assert chosen.value == pytest.approx(math.log(0.01))
    assert (chosen.decoys, chosen.raised_from) == ((100, 100), None)
    assert chosen.false_positives.rows < 1e-9
    assert str(chosen.false_positives).startswith("fewer than about 3 ")


def test_the_suggestion_is_lower_where_the_model_refuses_decoys_less():
    chosen = suggest([-40.0 + score for score in normal(2000)], [-10.0 - i / 100 for i in range(100)])
    assert (chosen.value, chosen.decoys) == (-10.94, (95, 100))


def test_the_suggestion_is_raised_where_it_would_hit_many_clean_rows():
    rows = [-4.0 + score for score in normal(4000)]
    chosen = suggest(rows, [-float(i) / 100 for i in range(100)])
    assert chosen.raised_from == pytest.approx(math.log(0.01))
    assert chosen.value == pytest.approx(-4 + 2.326, abs=0.1)
    assert chosen.false_positives.rows == pytest.approx(40, rel=0.02)
    assert sum(score >= chosen.value for score in rows) == pytest.approx(40, abs=20)


def test_the_suggestion_finds_half_of_the_decoys_whatever_the_clean_rows_are():
    chosen = suggest([score - 1.0 for score in normal(2000)], [-float(i) / 100 for i in range(100)])
    assert (chosen.value, chosen.decoys) == (-0.49, (50, 100))
    assert chosen.false_positives.rows > 0.2 * 2000


def test_clean_rows_bound_the_share_that_is_flagged_for_nothing():
    clean = [float(i) for i in range(399)]  # one more exceeds the fourth highest with probability 4 / 400
    chosen = suggest([0.0] * 1000, [1000.0] * 20, clean)
    assert sum(score >= chosen.value for score in clean) == 3
    assert chosen.false_positives.rows == pytest.approx(1000 * 3 / 399)
    assert chosen.false_positives.low < chosen.false_positives.rows < chosen.false_positives.high


def test_a_given_threshold_is_taken():
    chosen = suggest([0.0] * 200, [1.0, 3.0], given=2.0)
    assert (chosen.value, chosen.given, chosen.decoys) == (2.0, True, (1, 2))


def test_reasons_name_the_numbers():
    score = RowScore(3, 0, 0.9, math.log(0.25), 2.0, 3.5, 0.8, {"guard:x": "complied"})
    text = " ".join(reasons(score))
    for part in ("probability 0.25", "3.50 nats", "+0.80", "guard:x: complied"):
        assert part in text
    assert "Not scored" in reasons(RowScore(1))[0]
