#!/usr/bin/env python3
"""The audit's pages in a real browser, headless.

  pages_test.py PROGRAM [--screenshots FOLDER]

Makes one page with each `PROGRAM audit ... --html`, opens it 400 and 1400 pixels wide, light and dark,
and checks: nothing in the console, nothing asked of a network, no text cut off or outside its picture,
words for every picture, and stepping from the keyboard. A page with planted mistakes must fail each
check. Exit code 77: there is no Chromium, chromedriver or selenium here.
"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    print("SKIPPED: Python has no selenium here (Debian: python3-selenium)")
    sys.exit(77)

AUDITS = {
    "gradients": [],
    "mrbp": [],
    "trace": [],
    "tape": [],
    "memory": [],
    "slots": [],
    "determinism": [],
}
WIDTHS = (400, 1400)

# What a reader cannot read: text wider than a box that hides it, text outside its picture, a page wider
# than the window. Boxes that scroll are no fault.
FIND_CUT_TEXT = r"""
const found = [];
const name = (e) => e.tagName + ' "' + (e.textContent || '').trim().slice(0, 40) + '"';
if (document.documentElement.scrollWidth > window.innerWidth + 1)
  found.push('the page is ' + document.documentElement.scrollWidth + ' pixels wide');
const hidden = ['hidden', 'clip'];
for (const e of document.body.querySelectorAll('*')) {
  if (e.closest('svg') || e.offsetParent === null) continue;
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own) continue;
  const style = getComputedStyle(e);
  if (hidden.includes(style.overflowX) && e.scrollWidth > e.clientWidth + 1) found.push('cut: ' + name(e));
  if (hidden.includes(style.overflowY) && e.scrollHeight > e.clientHeight + 1) found.push('cut: ' + name(e));
  if (style.textOverflow === 'ellipsis' && e.scrollWidth > e.clientWidth) found.push('cut: ' + name(e));
}
for (const svg of document.querySelectorAll('svg')) {
  const box = svg.getBoundingClientRect();
  if (box.width === 0) continue;
  for (const text of svg.querySelectorAll('text')) {
    const r = text.getBoundingClientRect();
    if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1)
      found.push('outside its picture: ' + name(text));
    if (parseFloat(getComputedStyle(text).fontSize) * box.width / svg.viewBox.baseVal.width < 9)
      found.push('smaller than 9 pixels: ' + name(text));
  }
}
return [...new Set(found)];
"""

FIND_SILENT_PICTURES = r"""
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  const words = (tag) => svg.querySelector(':scope > ' + tag)?.textContent.trim();
  if (svg.getAttribute('role') !== 'img' || !words('title') || !words('desc'))
    found.push('picture without words: ' + (words('title') || svg.outerHTML.slice(0, 60)));
}
for (const img of document.querySelectorAll('img'))
  if (!img.alt.trim()) found.push('picture without words: ' + img.src.slice(0, 60));
return found;
"""

BAD_PAGE = """<!DOCTYPE html><html lang="en"><head><title>bad</title>
<script src="http://127.0.0.1:9/x.js"></script></head><body>
<p style="width:60px;overflow:hidden;white-space:nowrap">this text is wider than its box</p>
<svg viewBox="0 0 100 20" style="width:600px"><text x="90" y="10">outside</text></svg>
<script>console.error('planted');</script></body></html>"""


class Browser:
    def __init__(self, chromium, chromedriver):
        options = Options()
        options.binary_location = chromium
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking", "--no-first-run", "--hide-scrollbars"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service(chromedriver), options=options)

    def command(self, name, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, url, width, dark=False):
        """Loads a page in a window of this width; returns what the load itself showed to be wrong."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                     mobile=False)
        self.command("Emulation.setEmulatedMedia",
                     features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get("about:blank")
        self.driver.get(url)
        faults = ["console: " + entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked = message["params"]["request"]["url"]
                if not asked.startswith(("file:", "data:", "about:")):
                    faults.append("network: " + asked)
        return faults

    def faults(self):
        return self.driver.execute_script(FIND_CUT_TEXT) + self.driver.execute_script(FIND_SILENT_PICTURES)

    def open_everything(self):
        self.driver.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")

    def screenshot(self, path):
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        picture = self.command("Page.captureScreenshot", captureBeyondViewport=True,
                               clip={"x": 0, "y": 0, "width": size["width"],
                                     "height": min(size["height"], 6000), "scale": 1})
        pathlib.Path(path).write_bytes(base64.b64decode(picture["data"]))

    def step_faults(self):
        """Drives a step-through with the keyboard alone."""
        faults = []
        body = self.driver.find_element(By.TAG_NAME, "body")

        def shown():
            return self.driver.execute_script(
                "return [...document.querySelectorAll('.step')].map((s, i) => "
                "s.offsetParent ? i : -1).filter((i) => i >= 0)")

        count = len(self.driver.find_elements(By.CLASS_NAME, "step"))
        if count < 3:
            faults.append(f"stepping: {count} steps")
        for key, expected in ((Keys.HOME, 0), (Keys.ARROW_RIGHT, 1), (Keys.ARROW_RIGHT, 2),
                              (Keys.ARROW_LEFT, 1), (Keys.END, count - 1), (Keys.ARROW_RIGHT, count - 1),
                              (Keys.HOME, 0), (Keys.ARROW_LEFT, 0)):
            body.send_keys(key)
            if shown() != [expected]:
                faults.append(f"stepping: steps {shown()} are shown, not {expected}")
        place = self.driver.find_element(By.CSS_SELECTOR, ".steps output").text
        if place != f"step 1 of {count}":
            faults.append(f"stepping: it says '{place}'")
        self.command("Emulation.setEmulatedMedia", media="print")
        if shown() != list(range(count)):
            faults.append("printed, some steps are missing")
        self.command("Emulation.setEmulatedMedia", media="")
        return faults


def make_page(program, folder, name, arguments):
    page = folder / f"{name}.html"
    done = subprocess.run([program, "audit", name, "--html", page, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"audit {name} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--only", choices=AUDITS, action="append")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        print("SKIPPED: there is no Chromium with chromedriver here (Debian: chromium chromium-driver)")
        return 77
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)

    faults = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        browser = Browser(chromium, chromedriver)
        try:
            bad = folder / "bad.html"
            bad.write_text(BAD_PAGE)
            seen = browser.open(bad.as_uri(), 1400) + browser.faults()
            for planted in ("console: ", "network: http://127.0.0.1:9/x.js", "cut: P", "outside its picture",
                            "picture without words"):
                if not any(planted in fault for fault in seen):
                    faults.append(f"the planted mistake '{planted}' was not found in {seen}")

            for name in arguments.only or AUDITS:
                page = make_page(os.path.abspath(arguments.program), folder, name, AUDITS[name])
                for width in WIDTHS:
                    for dark in (False, True):
                        found = browser.open(page.as_uri(), width, dark)
                        browser.open_everything()
                        found += browser.faults()
                        faults += [f"{name}, {width} pixels: {fault}" for fault in found]
                        if arguments.screenshots:
                            scheme = "dark" if dark else "light"
                            browser.screenshot(arguments.screenshots / f"{name}-{width}-{scheme}.png")
                if name == "trace":
                    faults += [f"{name}: {fault}" for fault in browser.step_faults()]
                print(f"{name}: {page.stat().st_size} bytes", flush=True)
        finally:
            browser.driver.quit()
    for fault in dict.fromkeys(faults):
        print("FAULT", fault)
    print("all pages are as they should be" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
