"""The leaderboard in a real browser, from a file: it sorts, filters and compares as the kept table says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossexplain.checks import InputError
from crossexplain_book.live.board import Leaderboard
from support.live_page import opened

KEPT = Path(__file__).parents[2] / "data" / "results" / "leaderboard.csv"
TOPICS = {"areas": ("joint area", "area, cells", "area, words"), "truth": ("deciding words", "deciding cells")}
KINDS = {"baselines": ("baseline", "bound"), "gradients": ("gradient", "CAM", "saliency", "DeepLIFT", "attention"),
         "coalitions": ("",)}
WORDS = {"alt": "Tables of what was measured of each method.", "caption": "All. Read it so.", "name": "fig-07-tables"}


@pytest.fixture(scope="module")
def board() -> pd.DataFrame:
    return pd.read_csv(KEPT)


@pytest.fixture
def page(browser, board, tmp_path):
    with opened(browser, tmp_path, Leaderboard(board, TOPICS, KINDS, **WORDS).html()) as page:
        yield page


def rows(page) -> list[list[str]]:
    """Return the texts of the rows that are shown."""
    return page.locator(".ce-lab-tall tbody tr:visible").evaluate_all("all => all.map(r => [...r.cells].map(c => c.innerText))")


def test_it_begins_with_all_rows_the_largest_joint_area_first(page, board):
    areas = board[board.metric.isin(TOPICS["areas"])]
    shown = rows(page)
    assert len(shown) == len(areas.groupby(["model", "method"]))
    best = areas[areas.metric == "joint area"].value
    assert [float(row[3]) for row in shown if row[3]] == pytest.approx(sorted(best, reverse=True), abs=0.0051)
    for model, method, _, value in [row[:4] for row in shown[:50] if row[3]]:
        at = areas[(areas.model == model) & (areas.method == method) & (areas.metric == "joint area")]
        assert float(value) == pytest.approx(at.value.item(), abs=0.0051)


def test_a_heading_sorts_both_ways_and_filters_narrow(page, board):
    page.get_by_role("button", name="passes", exact=True).click()
    passes = [float(row[2]) for row in rows(page)]
    assert passes == sorted(passes, reverse=True)
    page.get_by_role("button", name="passes", exact=True).press("Enter")  # by key
    assert [float(row[2]) for row in rows(page)] == sorted(passes)
    page.get_by_role("button", name="method", exact=True).tap()
    assert (names := [row[1].lower() for row in rows(page)]) == sorted(names)
    model = board.model[0]
    page.get_by_label("Model").select_option(model)
    page.get_by_label("Kind of method").select_option("gradients")
    page.get_by_label("Name contains").fill("CAPTUM")
    shown = rows(page)
    assert {row[0] for row in shown} == {model} and {row[1] for row in shown} == {"gradient SHAP (Captum)"}
    assert page.locator("[role=status]").nth(0).inner_text().startswith("1 of ")
    page.get_by_label("What is measured").select_option("truth")
    assert "deciding words" in page.locator(".ce-lab-tall thead").inner_text() and len(rows(page)) == 1


def test_two_methods_stand_side_by_side_with_the_interval_of_their_difference(page, board):
    model, (a, b) = board.model[0], ("Shapley, exact", "gradient (round 1)")
    page.get_by_label("Model").select_option(model)
    page.get_by_role("button", name=f"compare {a}", exact=True).click()
    page.get_by_role("button", name=f"compare {b}", exact=True).press("Space")
    assert [page.get_by_label(label).evaluate("e => e.selectedOptions[0].text")
            for label in ("first method", "second method")] == [a, b]
    lines = page.locator(".ce-lab-live table").nth(1).locator("tbody tr").evaluate_all(
        "all => all.map(r => [...r.cells].map(c => c.innerText))")
    assert [line[1] for line in lines] == list(TOPICS["areas"])
    for line in lines:
        one, other = (board[(board.model == model) & (board.method == method) & (board.metric == line[1])].iloc[0]
                      for method in (a, b))
        assert line[2:4] == [f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in (one, other)]
        low = one.value - other.value - np.hypot(one.value - one.low, other.high - other.value)
        assert float(line[4].split("[")[1].split(",")[0]) == pytest.approx(low, abs=0.0051)
        assert line[6] == str(int(min(one.n, other.n))) and (line[5] == f"{a} is higher") == (low > 0)
    page.get_by_role("button", name=f"compare {a}", exact=True).click()  # out again
    assert "Choose two methods" in page.locator(".ce-lab-live").inner_text()


def test_why_a_method_was_not_measured_is_said(page, board):
    lost = board[board.note.notna() & (board.method == "Grad-CAM")].iloc[0]
    page.get_by_label("Model").select_option(lost.model)
    page.get_by_label("first method").select_option("Shapley, exact")
    page.get_by_label("second method").select_option(lost.method)
    assert lost.note in page.locator(".ce-lab-live table").nth(1).inner_text()


def test_the_address_keeps_the_state_and_a_link_leads_to_it(browser, board, tmp_path):
    markup = Leaderboard(board, TOPICS, KINDS, **WORDS).html()
    with opened(browser, tmp_path, markup, "#board=1~2~0~1~1~3~-1~SHAP%20%C3%A9") as page:
        assert page.get_by_label("Name contains").input_value() == "SHAP é" and not rows(page)
        page.get_by_label("Name contains").fill("shap")
        names = [row[1] for row in rows(page)]
        assert len(names) > 2 and names == sorted(names, key=str.lower, reverse=True)
        assert page.evaluate("location.hash") == "#board=1~2~0~1~1~3~-1~shap"
        page.evaluate("location.hash = '#board=0~0~0~1~0~-1~-1~'")
        page.wait_for_function("document.querySelector('input').value === ''")
        page.get_by_role("button", name="copy a link").click()
        page.get_by_text("ink").last.wait_for()
    with opened(browser, tmp_path, markup, "#board=9~9~nonsense") as page:
        assert len(rows(page)) > 100


def test_without_a_script_there_are_plain_tables(browser, board, tmp_path):
    (tmp_path / "page.html").write_text(Leaderboard(board, TOPICS, KINDS, **WORDS).html(), "utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("summary").first.click()
    assert page.locator("details table").count() == 2 and page.get_by_text("Shapley, exact").first.is_visible()
    context.close()


def test_what_travels_is_small_and_a_method_of_no_kind_is_refused(board):
    part = Leaderboard(board, TOPICS, KINDS, **WORDS)
    plain = part.markup.split("<script type")[0]
    assert len(part.markup) - len(plain) < 90_000
    with pytest.raises(InputError, match="none of the kinds one"):
        Leaderboard(board, TOPICS, {"one": ("baseline",)}, **WORDS)
