import gc

from relay.process import gc_tuning


def test_settling_lets_the_collector_walk_rarely_and_leaves_out_what_is_there() -> None:
    before = gc.get_threshold()
    try:
        gc_tuning.freeze_heap()

        assert gc.get_threshold() == gc_tuning.THRESHOLDS
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
