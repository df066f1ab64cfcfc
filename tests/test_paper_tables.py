"""The paper's tables beside our counts."""

import pytest

from corpus.catalog import load_catalog
from pipelines import clean_vqa, dedup, paper_tables
from pipelines.engine import job
from tests.published import put_images, put_json, run_job


@pytest.fixture
def cleaned(tmp_path):
    images = put_images(tmp_path / "images", ["1.jpg"])
    qas = [{"qa_id": i, "image_id": 1, "question": f"Q{i}?", "answer": "Green."} for i in range(3)]
    put_json(tmp_path / "question_answers.json", [{"id": 1, "qas": qas}])
    flags = ["--images", images, "--input", tmp_path / "question_answers.json", "--output", tmp_path / "vgqa"]
    run_job(clean_vqa, "--dataset", "vgqa", *flags)
    return tmp_path


def test_tables_show_the_papers_counts_and_ours(cleaned):
    catalog = load_catalog()
    counts = paper_tables.read_counts([str(cleaned / "vgqa")], catalog)
    second = list(paper_tables.table_2(catalog, counts))
    assert len(second) == 2 + 10 + 1, "Table 2 lists ten datasets"
    assert second[2].split()[:4] == ["en", "laion-en", "2,000,000,000", "280,000,000"]
    third = {line[:22].strip(): line for line in paper_tables.table_3(catalog, counts)}
    assert third["VQA"].split()[1:5] == ["3,600,000", "3", "vgqa", "3;"]
    assert {"OCR", "Pure text", "Ref grounding"} <= third.keys() and " - " in third["OCR"]


def test_a_folder_of_no_dataset_is_refused(cleaned):
    run_job(dedup, "--input", cleaned / "vgqa/*.tar", "--each-other", "--output", cleaned / "apart")
    with pytest.raises(job.UserError, match="no cleaned dataset"):
        paper_tables.read_counts([str(cleaned / "apart")], load_catalog())
