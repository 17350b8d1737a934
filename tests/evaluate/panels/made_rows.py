"""Rows in the formats of the data sets that panels read, made on the spot."""

import csv
import json


def write(place):
    """All of them, in a folder."""
    write_ifeval(place)
    write_task(place)
    write_pairs(place)
    write_winobias(place)
    write_bbq(place)


def write_ifeval(place):
    kinds = [["punctuation:no_comma"], ["startend:quotation", "keywords:existence"]]
    kwargs = [[{}], [{}, {"keywords": ["tea"]}]]
    rows = [
        {"key": n, "prompt": f"Write {n}.", "instruction_id_list": kinds[n % 2], "kwargs": kwargs[n % 2]}
        for n in range(4)
    ]
    write_lines(place / "input_data.jsonl", rows)


def write_task(place):
    (place / "animals.yaml").write_text(
        "name: animals\nkind: choices\ndata: [animals.jsonl]\n"
        'prompt: "Question: Which animal has number {{ n }} here?\\nA. cow\\nB. frog\\nAnswer:"\n'
        "choices: [A, B]\nanswer: n % 2\nmetrics: [acc, gold_bpb]\n"
    )
    write_lines(place / "animals.jsonl", [{"n": n} for n in range(14)])


def write_pairs(place):
    with (place / "crows_pairs_anonymized.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"])
        rows.writerows([n, f"Poor {n} lie.", f"Rich {n} lie.", "stereo", f"kind{n % 2}"] for n in range(6))
    labels = ("stereotype", "anti-stereotype", "unrelated")
    triples = [
        {
            "id": str(n),
            "context": "He is BLANK.",
            "bias_type": "gender",
            "sentences": [{"gold_label": label, "sentence": f"He is {label} {n}."} for label in labels],
        }
        for n in range(3)
    ]
    (place / "dev.json").write_text(json.dumps({"data": {"intrasentence": triples}}))


def write_winobias(place):
    pro = (
        "1 [The developer] argued with the designer because [he] did not like it.\n"
        "2 The guard asked [the nurse] if [she] was ill.\n"
    )
    swapped = pro.replace("[he]", "[x]").replace("[she]", "[he]").replace("[x]", "[she]")
    (place / "pro_stereotyped_type1.txt.dev").write_text(pro)
    (place / "anti_stereotyped_type1.txt.dev").write_text(swapped)


def write_bbq(place):
    (place / "bbq").mkdir()
    rows = [
        {
            "example_id": n,
            "question_polarity": polarity,
            "context_condition": condition,
            "category": "Age",
            "answer_info": {"ans0": ["a", "old"], "ans1": ["b", "nonOld"], "ans2": ["c", "unknown"]},
            "additional_metadata": {"stereotyped_groups": ["old"]},
            "context": "They were there.",
            "question": "Who forgot it?",
            "ans0": "The old man",
            "ans1": "The young man",
            "ans2": "Not known",
            "label": 2 if condition == "ambig" else n % 2,
        }
        for n, (polarity, condition) in enumerate(
            (p, c) for p in ("neg", "nonneg") for c in ("ambig", "disambig") for _ in range(3)
        )
    ]
    write_lines(place / "bbq" / "Age.jsonl", rows)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
