"""The page that says which models work is made of the tables that the benchmark wrote."""

from crossexplain_book.assemble import families_tables, published_table, typed_tables

HEAD = "family,kind,method,outcome,reason\n"


def test_a_family_is_listed_with_how_many_methods_are_right_and_why_others_are_not(tmp_path):
    kept = tmp_path / "families.csv"
    kept.write_text(HEAD + "CLIP,pairs,rounds,right,\nCLIP,pairs,Grad-CAM,refused,no layer | here\nViT,pictures,game,right,\n"
                    "ViT,pictures,rounds,not for it,one modality\n", "utf-8")
    page = families_tables(kept)
    assert page.index("### Pairs") < page.index("### Pictures")
    assert "| CLIP | 1 of 2 | Grad-CAM: refused, no layer \\| here |" in page and "| ViT | all 1 |  |" in page


def test_what_is_typed_is_shown_with_its_number_of_lines(tmp_path):
    kept = tmp_path / "typed.csv"
    kept.write_text('task,library,lines_here,lines_there,here,there\na map,captum,1,2,a = 1,"b = 1\nc = 2"\n', "utf-8")
    page = typed_tables(kept)
    assert "| a map | 1 | 2 | captum |" in page and "```python\nb = 1\nc = 2\n```" in page and "### A map" in page


def test_families_that_run_in_their_page_are_listed_and_the_others_by_their_reason(tmp_path):
    kept = tmp_path / "published.csv"
    kept.write_text("family,kind,came,reason\nXLNet,texts,stored,the step aten.sub | no\nCLIP,pairs,live,\n"
                    "BERT,texts,live,\nGPT,texts,stored,the step aten.sub | no\n", "utf-8")
    live, others = published_table(kept).split("\n\n")
    assert live.endswith("for 2 of 4: CLIP, BERT.") and others.endswith("| XLNet, GPT | `the step aten.sub / no` |")


def test_without_the_tables_the_page_says_that_nothing_was_measured(tmp_path):
    found = {make(tmp_path / "none.csv") for make in (families_tables, published_table, typed_tables)}
    assert found == {"Not measured in this checkout."}
