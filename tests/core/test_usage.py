import mmap

from matura.core.usage import Meter


def test_processor_time_is_what_was_computed():
    meter = Meter.start()
    assert meter.cpu_seconds < 0.05
    while meter.cpu_seconds < 0.05:
        sum(range(1000))
    assert meter.seconds > 0


def test_the_peak_is_of_the_work_since_the_start_and_not_of_what_came_before():
    before = Meter.start()
    held = mmap.mmap(-1, 96 << 20)  # an allocator may keep what is freed, as it does where a model has run
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    high = before.peak_memory
    assert high is not None
    assert high >= before.peak + (64 << 20)
    held.close()
    after = Meter.start().peak_memory
    assert after is None or after < high - (64 << 20)
