"""What explore.py counts: at any thresholds what retune.py makes, whole or as a sample; and who is let in."""

import asyncio
import json
import random
import sys
from collections import Counter
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp.test_utils import TestClient, TestServer

from corpus.folder import OutputFolder
from corpus.ledger import Counts
from corpus.rules import BOUNDS
from pipelines import retune
from pipelines.engine.inputs import UserError
from pipelines.explorer import answers, database, ledgers, queries
from pipelines.explorer.answers import Session
from pipelines.explorer.folders import open_folders
from pipelines.explorer.server import application
from pipelines.work.datasets import changed_rules
from pipelines.work.judged import judge
from tests.cleaned import sample, write_cleaned
from tests.explored import HOSTILE, cleaned  # noqa: F401 - a fixture
from tests.test_build_stage import build
from tests.test_stores import s3  # noqa: F401 - a fixture

DATASETS = ("laion-en", "laion-zh", "in-house-text")
TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def sessions(cleaned):  # noqa: F811
    opened = {name: Session(open_folders([str(path)]), 300) for name, path in cleaned.items()}
    yield opened
    for session in opened.values():
        session.close()


def counted(session, changes, exact=True):
    return answers.count(session, {"folder": ["0"], "set": changes, "exact": [str(int(exact))]})


def random_changes(sliders, chance, tighter=False) -> list[str]:
    """Thresholds moved at random; `tighter`: only so that more rows fall."""
    changes = []
    for slider in chance.sample(sliders, chance.randint(1, min(3, len(sliders)))):
        sign = {"min": 1, "above": 1, "max": -1}[slider["bound"]] if tighter else chance.choice((1, -1))
        moved = slider["value"] + sign * chance.random() * max(0.2, 0.6 * abs(slider["value"]))
        changes.append(f"{slider['rule']}.{slider['parameter']}={moved:.4f}")
    return changes


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("seed", range(10))
def test_it_judges_as_retune_does(name, seed, sessions):
    """Ten random settings over each of three datasets, tighter and looser."""
    opened, chance = sessions[name].opened[0], random.Random(seed)
    changes = random_changes(list(opened.sliders()), chance)
    rules = changed_rules(opened.table, opened.settings["rules"], changes)
    dropped, kept, back = Counter(), 0, 0
    for manifest in opened.manifests:
        ledger = opened.folder.table(manifest)
        found = judge(ledger, opened.table, rules)
        stays = found.dropped & ~found.fails & ~found.passed
        dropped.update(found.rule[(found.kept | found.dropped) & found.fails].tolist())
        dropped.update(r for r, s in zip(ledger["rule"].to_pylist(), stays, strict=True) if s)
        kept += int((found.kept & ~found.fails).sum())
        back += int(found.passed.sum())
    told = counted(sessions[name], changes)
    assert told["exact"] and (told["kept"], told["back"]) == (kept, back)
    assert {line["rule"]: line["dropped"] for line in told["funnel"] if line["dropped"]} == dropped


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(i, marks=pytest.mark.slow) for i in range(3, 10))])
def test_the_count_is_that_of_the_folder_that_retune_makes(seed, sessions, cleaned, tmp_path):  # noqa: F811
    name = DATASETS[seed % 3]
    changes = random_changes(list(sessions[name].opened[0].sliders()), random.Random(seed), tighter=True)
    told = counted(sessions[name], changes)
    argv = ["retune.py", str(cleaned[name]), "--output", str(tmp_path / "new"), "--workers", "0", "--set", *changes]
    with patch.object(sys, "argv", argv):
        retune.main()
    made = sum((m.counts for m in OutputFolder(str(tmp_path / "new")).manifests().values()), Counts())
    assert (told["kept"], told["errors"], told["rows"]) == (made.kept, made.errors, made.rows)
    assert {line["rule"]: line["dropped"] for line in told["funnel"] if line["dropped"]} == made.dropped
    assert told["fell"] == sessions[name].opened[0].counts.kept - made.kept


def test_every_bound_is_compared_as_the_rules_compare_it(sessions):
    assert queries.COMPARED.keys() == BOUNDS.keys()
    for bound, operator in queries.COMPARED.items():
        for value, threshold in ((1.0, 2.0), (2.0, 2.0), (3.0, 2.0)):
            (found,) = sessions["laion-en"].database.rows(f"SELECT ?::DOUBLE {operator} ?", [value, threshold])[0]
            assert found == BOUNDS[bound](value, threshold)


def test_a_score_that_is_no_number_does_not_fail(tmp_path, sessions):
    opened = sessions["laion-en"].opened[0]
    table = ledgers._score(pa.chunked_array([pa.array([float("nan"), None, 1.0])]))
    assert table.to_pylist() == [None, None, 1.0]
    assert opened.scores[-1] == "clip_score"


def test_a_sample_is_told_apart_and_the_whole_follows(cleaned, monkeypatch):  # noqa: F811
    monkeypatch.setattr(ledgers, "SAMPLE_ROWS", 40)
    session = Session(open_folders([str(cleaned["laion-en"])]), 300)
    first = counted(session, [], exact=False)
    assert not first["exact"] and first["rows"] == first["sampled"] == 40 < first["of"] == 120
    while not (last := counted(session, []))["ready"]:
        pass
    assert last["exact"] and last["rows"] == 120 and last["kept"] == session.opened[0].counts.kept
    session.close()


def test_more_rows_than_memory_holds_leave_the_sample(cleaned, monkeypatch):  # noqa: F811
    def full(self, name, rows):
        if name.startswith("whole"):
            raise database.TooLarge("full")
        return add(self, name, rows)

    add = database.Database.add
    monkeypatch.setattr(ledgers, "SAMPLE_ROWS", 40)
    monkeypatch.setattr(database.Database, "add", full)
    session = Session(open_folders([str(cleaned["laion-en"])]), 300)
    while not (told := counted(session, []))["problem"]:
        pass
    assert told["problem"] == "120 rows are more than --memory holds" and not told["exact"] and told["rows"] == 40


def test_the_first_screen_tells_the_funnel_and_where_the_scores_lie(sessions):
    told = answers.folder(sessions["laion-en"], {"folder": ["0"]})
    counts = sessions["laion-en"].opened[0].counts
    assert (told["rows"], told["kept"], told["dropped"]) == (counts.rows, counts.kept, counts.dropped)
    clip, words = told["histograms"]["clip_score"], told["histograms"]["words"]
    assert clip["low"] <= 0.22 <= clip["high"] and not clip["whole"] and words["whole"]
    assert sum(words["counts"]) == words["rows"] == everything(sessions["laion-en"], range="words::")["total"]
    assert {"rule": "clip_score", "parameter": "min", "score": "clip_score", "bound": "min", "value": 0.22}.items() <= (
        told["sliders"][-1].items()
    )


def test_the_edge_is_nearest_first_and_tells_what_changes_sides(sessions):
    asked = {"folder": ["0"], "set": ["clip_score.min=0.33"], "rule": ["clip_score"], "parameter": ["min"]}
    found = answers.edge(sessions["laion-en"], asked)
    falls, stays = ([card["ledger"] for card in found[side]] for side in ("falls", "stays"))
    assert falls and stays
    moved = [row["clip_score"] for row in falls if row["outcome"] == "kept"]
    assert moved == sorted(moved, reverse=True) and all(0.22 <= score < 0.33 for score in moved)
    assert [card["moves"] for card in found["falls"]] == [row["outcome"] == "kept" for row in falls]
    kept = [row["clip_score"] for row in stays]
    assert kept == sorted(kept) and min(kept) >= 0.33
    asked["set"] = ["clip_score.min=0.1"]
    found = answers.edge(sessions["laion-en"], asked)
    back = [card["ledger"]["clip_score"] for card in found["stays"] if card["moves"]]
    assert back and all(0.1 <= score < 0.22 for score in back)


def everything(session, **asked):
    return answers.rows(session, {"folder": ["0"], **{name: [value] for name, value in asked.items()}})


def test_rows_by_outcome_rule_value_and_text(sessions, cleaned):  # noqa: F811
    session, rows = sessions["laion-en"], []
    for path in sorted(cleaned["laion-en"].glob("*.parquet")):
        rows += pq.read_table(path).to_pylist()
    assert everything(session, outcome="kept")["total"] == sum(row["outcome"] == "kept" for row in rows)
    emoji = everything(session, outcome="dropped", rule="emoji")
    assert emoji["total"] == sum(row["rule"] == "emoji" for row in rows) > 0
    assert all("😀" in card["ledger"]["text_before"] for card in emoji["cards"])
    ranged = everything(session, range="clip_score:0.2:0.3", order="-clip_score")
    scores = [card["ledger"]["clip_score"] for card in ranged["cards"]]
    assert scores == sorted(scores, reverse=True) and all(0.2 <= each <= 0.3 for each in scores)
    said = [row for row in rows if "BARN" in (row["text_before"] or "").upper()]
    assert everything(session, text="bArN")["total"] == len(said) > 0
    changed = everything(session, changed="1", outcome="kept")
    assert changed["total"] == sum(row["text_after"] is not None and row["outcome"] == "kept" for row in rows)
    first, second = everything(session, page="0"), everything(session, page="1")
    assert not {c["ledger"]["key"] for c in first["cards"]} & {c["ledger"]["key"] for c in second["cards"]}


def test_a_kept_row_shows_its_own_sample(sessions):
    session = sessions["laion-en"]
    for card in everything(session, outcome="kept", order="random")["cards"]:
        opened = session.opened[0]
        assert answers.details.read_sample(opened, card["split"], card["at"]).key == card["ledger"]["key"]
        asked = {"folder": ["0"], "split": [str(card["split"])], "at": [str(card["at"])]}
        assert answers.picture(session, asked).startswith(b"\xff\xd8")


def test_a_folder_on_an_object_store_is_explored_as_one_on_disk(s3, sessions, cleaned):  # noqa: F811
    s3.objects |= {
        f"mine/laion-en/{file.name}": file.read_bytes() for file in cleaned["laion-en"].iterdir() if file.is_file()
    }
    here, there = sessions["laion-en"], Session(open_folders(["s3://crawl/mine"]), 300)
    try:
        asked = {"folder": ["0"], "set": ["clip_score.min=0.33"], "rule": ["clip_score"], "parameter": ["min"]}
        assert answers.count(there, asked | {"exact": ["1"]}) == answers.count(here, asked | {"exact": ["1"]})
        sides = [[card["ledger"] for card in answers.edge(each, asked)["falls"]] for each in (here, there)]
        assert sides[0] == sides[1] != []
        for card in everything(there, outcome="kept", order="row")["cards"][:3]:
            place = {"folder": ["0"], "split": [str(card["split"])], "at": [str(card["at"])]}
            assert answers.picture(there, place) == answers.picture(here, place)
    finally:
        there.close()


def test_the_plane_counts_every_row(sessions):
    asked = {"folder": ["0"], "x": ["clip_score"], "y": ["aspect_ratio"]}
    asked |= {"x_low": ["0.2"], "x_high": ["0.4"], "y_low": ["1"], "y_high": ["1.2"]}
    session = sessions["laion-en"]
    told = answers.plane(session, asked)
    inside = everything(session, range="clip_score:0.2:0.4", order="row")
    both = answers.rows(session, {"folder": ["0"], "range": ["clip_score:0.2:0.4", "aspect_ratio:1:1.2"]})
    assert sum(cell[2] for cell in told["cells"]) == both["total"] < inside["total"]
    scored = answers.rows(session, {"folder": ["0"], "range": ["clip_score::", "aspect_ratio::"]})["total"]
    assert told["outside"] == scored - both["total"]


def test_what_is_copied_is_what_is_shown(sessions, cleaned, tmp_path):  # noqa: F811
    asked = {"folder": ["0"], "set": ["clip_score.min=0.35", "text_length.max_words=9"]}
    text = answers.copy(sessions["laion-en"], asked)
    assert text["retune"].startswith(f"python pipelines/retune.py {cleaned['laion-en']} --set clip_score.min=0.35 ")
    assert "clip_score:\n      min: 0.35\n" in text["catalog"] and "max_words: 9" in text["catalog"]
    assert answers.copy(sessions["laion-en"], {"folder": ["0"]}) == {"retune": "", "catalog": ""}


def test_folders_are_found_below_and_a_stranger_is_refused(cleaned, tmp_path):  # noqa: F811
    root = cleaned["laion-en"].parent.parent
    assert {each.settings["dataset"] for each in open_folders([str(root)])} == set(DATASETS)
    with pytest.raises(UserError, match="none has a job.json"):
        open_folders([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        open_folders([str(tmp_path / "absent")])


# --- Over HTTP ---


def over_http(session, ask):
    async def run():
        async with TestClient(TestServer(application(session, TOKEN))) as client:
            return await ask(client)

    return asyncio.run(run())


@pytest.fixture
def session(cleaned):  # noqa: F811
    return Session(open_folders([str(cleaned["laion-en"])]), 300)


async def status(client, path, **more):
    response = await client.get(path, **more)
    return response.status, await response.text(), response.headers


def test_only_who_has_the_token_and_asks_this_host_is_let_in(session):
    async def ask(client):
        good, found = {"token": TOKEN}, []
        found.append((await status(client, "/api/folders", params=good))[0])
        client.session.cookie_jar.clear()
        for params, headers in (
            ({}, {}),
            ({"token": "other"}, {}),
            (good, {"Host": "evil.example"}),
            (good, {"Host": ""}),
        ):
            found.append((await status(client, "/api/folders", params=params, headers=headers))[0])
            client.session.cookie_jar.clear()
        found.append((await client.post("/api/folders", params=good)).status)
        return found

    assert over_http(session, ask) == [200, 403, 403, 403, 403, 403]


@pytest.mark.parametrize(
    "path",
    [
        "/api/rows?folder=7", "/api/rows?folder=-1", "/api/rows?folder=/etc", "/picture?folder=0&split=9&at=0",
        "/picture?folder=0&split=0&at=99999", "/picture?folder=0&split=0&at=-1",
        "/pack-picture?folder=0&pack=0&image=0",
        "/%2e%2e/%2e%2e/etc/passwd", "/..%2fserver.py", "/server.py", "/etc/passwd", "/api/sql?q=select",
    ],
)  # fmt: skip
def test_what_lies_outside_the_folders_is_refused(path, session):
    joint = "&" if "?" in path else "?"
    found, _, _ = over_http(session, lambda client: status(client, f"{path}{joint}token={TOKEN}"))
    assert found == 403


@pytest.mark.parametrize(
    "query",
    [
        "count?folder=0&set=clip_score.min=x", "count?folder=0&set=clip_score.missing=drop", "count?folder=0&set=a.b=1",
        "rows?folder=0&range=nothing:0:1", "rows?folder=0&order=key;drop table x", "rows?folder=0&outcome=lost",
        "plane?folder=0&x=clip_score", "count?folder=0&set=clip_score.min=nan", "rows?folder=0&page=x",
    ],
)  # fmt: skip
def test_wrong_questions_are_answered_with_a_reason(query, session):
    found, text, _ = over_http(session, lambda client: status(client, f"/api/{query}&token={TOKEN}"))
    assert found == 400 and json.loads(text)["error"]


def test_the_page_may_load_nothing_from_elsewhere(session):
    async def ask(client):
        page = await status(client, f"/?token={TOKEN}")
        later = await status(client, "/main.js")  # the cookie lets it in
        return page, later

    (_, page, headers), (code, script, _) = over_http(session, ask)
    assert code == 200 and "import" in script and "http" not in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]


def test_the_database_opens_no_file(sessions, tmp_path):
    data = sessions["laion-en"].database
    for statement in ("SELECT * FROM read_text('/etc/passwd')", f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
                      f"ATTACH '{tmp_path}/x.db'", "INSTALL httpfs", "SET enable_external_access = true"):  # fmt: skip
        with pytest.raises(Exception, match="(?i)permission|disabled|locked"):
            data.rows(statement)
    assert not list(tmp_path.iterdir())


def test_a_query_has_a_deadline(sessions, monkeypatch):
    monkeypatch.setattr(database, "DEADLINE", 0.2)
    with pytest.raises(database.TooSlow, match="no answer in"):
        sessions["laion-en"].database.rows("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")


def test_packs_are_shown_from_their_tokens(tmp_path):
    note = {"question": HOSTILE, "answer": "yes"}
    write_cleaned(tmp_path / "cleaned", "gqa", [sample("gqa", "vqa", i, annotations=note) for i in range(3)])
    stage = build(tmp_path / "cleaned", tmp_path / "stage2")
    session = Session(open_folders([stage.path]), 300)
    shown = answers.pack(session, {"folder": ["0"], "pack": ["0"]})
    assert "".join(run["text"] for run in shown["samples"][0]["runs"] if not run["supervised"]).startswith(HOSTILE)
    assert [sum(len(s["images"]) for s in shown["samples"]), shown["packs"]] == [shown["images"], len(stage)]
    asked = {"folder": ["0"], "pack": ["0"], "image": ["0"]}
    assert answers.pack_picture(session, asked).startswith(b"\xff\xd8")
