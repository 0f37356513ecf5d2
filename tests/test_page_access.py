"""The page for everybody: by keyboard alone, on a phone, in the dark, read aloud."""

from __future__ import annotations

import pytest

from tests.browsing import OVER, as_fasta, browser, expected, records, visiting

pytestmark = pytest.mark.slow

__all__ = ["browser"]


@pytest.fixture(scope="module")
def queries():
    return records(3)


def test_the_keyboard_alone_is_enough(browser, served, queries):
    with visiting(browser, served.url) as visit:
        keys = visit.open().page.keyboard

        def reach(holds, key="Tab"):
            for _ in range(60):
                keys.press(key)
                if visit.page.evaluate(
                    f"() => {{ const at = document.activeElement; return {holds}; }}"
                ):
                    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
                    assert visit.page.evaluate(outline) != "none"
                    return
            raise AssertionError(f"Tab does not come to {holds}")

        reach("at.id === 'skip'")
        reach("at.id === 'fasta'")
        keys.insert_text(as_fasta(queries[:1]))
        keys.press("Control+Enter")
        visit.page.wait_for_selector("table.hits")
        visit.page.wait_for_function("() => document.activeElement.id === 'results-heading'")
        reach("at.matches('table.hits button.open')")
        keys.press("Enter")
        visit.page.wait_for_selector("tr.details .block")
        assert (
            visit.page.evaluate("() => document.activeElement.getAttribute('aria-expanded')")
            == "true"
        )
        reach("at.matches('pre.alignment')")
        # And out again, to the end of the page.
        reach("at.matches('footer a')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_horizontal_scroll(browser, served, queries, scheme):
    size = {"viewport": {"width": 380, "height": 800}, "color_scheme": scheme}
    with visiting(browser, served.url, **size) as visit:
        visit.open()
        assert visit.width() == (380, 380)
        visit.page.click(".filters summary")
        visit.page.click("#add-filter")
        visit.search(as_fasta(queries))
        visit.page.locator("table.hits button.open").first.click()
        visit.page.wait_for_selector("tr.details .block")
        visit.page.click(".menu summary")
        assert visit.width() == (380, 380)
        # The details of a hit are as wide as the window, not as the table.
        assert visit.page.locator(".detail").bounding_box()["width"] <= 380
        visit.search(">a\nMKV1")
        assert visit.width() == (380, 380)
        expected(visit, 422)


def luminance(colour):
    parts = [int(one) / 255 for one in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_colours(browser, served, queries, scheme):
    """Contrast of every text that is shown, by WCAG's formula: at least 4.5 (AA)."""
    with visiting(browser, served.url, color_scheme=scheme) as visit:
        visit.open().search(as_fasta(queries[:2]))
        visit.page.locator("table.hits button.open").first.click()
        visit.page.wait_for_selector("tr.details .block")
        pairs = visit.page.evaluate(
            """() => {
              const found = new Set();
              for (const one of document.querySelectorAll("body *:not(option)")) {
                const texts = [...one.childNodes].filter((node) => node.nodeType === 3);
                const has = texts.some((node) => node.data.trim());
                if (!has || !one.checkVisibility() || one.closest("svg, :disabled")) continue;
                let under = one;
                const back = (at) => getComputedStyle(at).backgroundColor;
                const clear = () => back(under) === "rgba(0, 0, 0, 0)";
                while (under.parentElement && clear()) under = under.parentElement;
                const what = one.className || one.tagName;
                found.add(`${getComputedStyle(one).color}|${back(under)}|${what}`);
              }
              return [...found];
            }"""
        )
        assert len(pairs) > 10
        for pair in pairs:
            ink, paper, what = pair.split("|")
            high, low = sorted([luminance(ink), luminance(paper)], reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (what, ink, paper)
        ground = luminance(
            visit.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        )
        assert (ground < 0.1) == (scheme == "dark")
        visit.page.click("#theme")
        turned = luminance(
            visit.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        )
        assert (turned < 0.1) != (scheme == "dark")
        visit.page.reload()
        visit.page.wait_for_selector(OVER)
        kept = luminance(
            visit.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        )
        assert kept == turned


def test_every_control_has_a_name(browser, served, queries):
    with visiting(browser, served.url) as visit:
        visit.open().page.click(".filters summary")
        visit.page.click("#add-filter")
        visit.search(as_fasta(queries[:2]))
        visit.page.locator("table.hits button.open").first.click()
        nameless = visit.page.evaluate(
            """() => [...document.querySelectorAll(
              "button, input, select, textarea, a, [role=button], [role=region]")]
              .filter((one) => !(one.labels?.length || one.textContent.trim()
                || one.getAttribute("aria-label") || one.getAttribute("aria-hidden")))
              .map((one) => one.outerHTML)"""
        )
        assert nameless == []
        ids = visit.page.evaluate(
            "() => [...document.querySelectorAll('[id]')].map((one) => one.id)"
        )
        assert len(ids) == len(set(ids))
        pointed = visit.page.evaluate(
            """() => [...document.querySelectorAll(
              "[aria-describedby], [aria-labelledby], label[for]")]
              .flatMap((one) => [one.getAttribute("aria-describedby"),
                one.getAttribute("aria-labelledby"), one.htmlFor])
              .filter((id) => id && !document.getElementById(id))"""
        )
        assert pointed == []
