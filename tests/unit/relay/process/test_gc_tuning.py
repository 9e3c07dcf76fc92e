import gc

from relay.process import gc_tuning


def test_freezing_makes_collections_rare_and_exempts_the_objects_that_exist() -> None:
    before = gc.get_threshold()
    try:
        gc_tuning.freeze_heap()

        assert gc.get_threshold() == gc_tuning.THRESHOLDS
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
