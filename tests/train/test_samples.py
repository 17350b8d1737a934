from matura.train.samples import read_samples, write_samples


def test_samples_come_back_as_they_were_written(tmp_path):
    assert read_samples(tmp_path) == []
    rows = [{"step": 1, "prompt": "", "text": "línea\n\u2028x"}, {"step": 2, "prompt": "a", "text": "b"}]
    write_samples(tmp_path, rows[:1])
    write_samples(tmp_path, rows)
    assert read_samples(tmp_path) == rows
