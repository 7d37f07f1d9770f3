"""Opens report pages in headless Chromium and checks what only a browser can tell.

python3 ci/browser.py CHROMIUM PAGE... ; speaks the DevTools protocol over pipes, needs nothing else.
"""

import json, os, pathlib, subprocess, sys, tempfile

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
]

# Contrast of every visible text against what is behind it, by WCAG's formula.
CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  let checked = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const svg = element instanceof SVGElement;
    const [a, b] = [luminance(rgb(svg ? style.fill : style.color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    checked += 1;
    if (ratio < 4.5) bad.push(element.tagName + " " + element.textContent.trim().slice(0, 40) + " " + ratio.toFixed(2));
  }
  return { checked, bad: bad.slice(0, 10), paper: luminance(behind(document.body)) };
})()"""

TABLE = "document.querySelector('#arms .interactive')"
COLUMN = """((title) => {
  const table = document.querySelector('#arms .interactive table');
  const column = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.startsWith(title));
  return [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.v).map((v) => v === undefined ? null : Number(v));
})"""
CLICK = """((title) => {
  const head = [...document.querySelector('#arms .interactive table').tHead.rows[0].cells].find((c) => c.textContent.startsWith(title));
  head.querySelector('button').click();
  return head.getAttribute('aria-sort');
})"""
FILTER = """((text) => {
  const box = document.querySelector('#arms .interactive');
  const input = box.querySelector('input');
  input.value = text;
  input.dispatchEvent(new Event('input'));
  const shown = [...box.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility());
  return { shown: shown.length, all: shown.every((row) => row.textContent.includes('tg') && row.textContent.includes('avx')), status: box.querySelector('[role=status]').textContent };
})"""


FIGURE = """(async () => {
  window.saved = [];
  document.querySelectorAll('.save')[0].querySelectorAll('button').forEach((button) => button.click());
  // One blob for the SVG, one that the PNG is drawn from, the PNG.
  for (let i = 0; i < 100 && window.saved.length < 3; i++) await new Promise((done) => setTimeout(done, 50));
  const [svg, , png] = window.saved;
  return [(await svg.text()).slice(0, 4), png && png.type, png && png.size];
})()"""


DOWNLOADS = """(async () => {
  document.querySelectorAll('.downloads button').forEach((button) => button.click());
  for (let i = 0; i < 100 && window.saved.length < 2; i++) await new Promise((done) => setTimeout(done, 50));
  const saved = await Promise.all(window.saved.map(async (blob) => [blob.type, await blob.text()]));
  return saved.sort().map((pair) => pair[1]);
})()"""


class Browser:
    """Chromium with one page, driven over its debugging pipe."""

    def __init__(self, program, profile):
        (read_in, self.write), (self.read, write_out) = os.pipe(), os.pipe()

        def wire():
            # Chromium reads commands from descriptor 3 and answers on 4; first out of each other's way.
            reader, writer = os.dup(read_in), os.dup(write_out)
            os.dup2(reader, 3)
            os.dup2(writer, 4)

        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(read_in)
        os.close(write_out)
        self.number, self.buffer, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def message(self):
        while b"\0" not in self.buffer:
            part = os.read(self.read, 1 << 16)
            if not part:
                raise SystemExit("the browser ended")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, url, width, scheme):
        before = len(self.events)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events[before:]):
            self.events.append(self.message())

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{expression[:60]}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def complaints(self):
        bad = ("Runtime.exceptionThrown", "Log.entryAdded")
        found = [e["params"] for e in self.events if e.get("method") in bad]
        found += [e["params"] for e in self.events if e.get("method") == "Runtime.consoleAPICalled" and e["params"]["type"] in ("error", "warning")]
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return found, [u for u in urls if not u.startswith(("file:", "blob:", "data:"))]


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print(f"ok: {what}")


def page(browser, path):
    url = pathlib.Path(path).resolve().as_uri()
    for scheme in ("light", "dark"):
        browser.open(url, 1280, scheme)
        contrast = browser.value(CONTRAST)
        check(contrast["checked"] > 100 and not contrast["bad"], f"contrast of {contrast['checked']} texts, {scheme} {contrast['bad']}")
        check((contrast["paper"] > 0.5) == (scheme == "light"), f"{scheme} scheme follows the system")
    browser.value("document.getElementById('scheme').click()")
    check(browser.value(CONTRAST)["paper"] > 0.5, "the reader's choice of a light scheme wins over a dark system")

    for title in ("Speed", "Threads"):
        direction = browser.value(f"{CLICK}('{title}')")
        values = browser.value(f"{COLUMN}('{title}')")
        figures = [v for v in values if v is not None]
        check(direction == "descending" and figures == sorted(figures, reverse=True), f"sorted by {title}, {direction}")
        check(None not in values[: len(figures)], "missing figures stand last")
        direction = browser.value(f"{CLICK}('{title}')")
        values = [v for v in browser.value(f"{COLUMN}('{title}')") if v is not None]
        check(direction == "ascending" and values == sorted(values), f"sorted by {title}, {direction}")
    rows = browser.value(f"{TABLE}.querySelectorAll('tbody tr').length")
    result = browser.value(f"{FILTER}('tg avx')")
    check(0 < result["shown"] < rows and result["all"], f"filtered: {result['status']}")
    check(browser.value(f"{FILTER}('no such arm')")["shown"] == 0, "a filter that nothing meets")
    check(browser.value(f"{FILTER}('')")["shown"] == rows, "filter taken back")

    browser.value("window.saved = []; const make = URL.createObjectURL; URL.createObjectURL = (blob) => { window.saved.push(blob); return make(blob); }")
    text = browser.value(DOWNLOADS)
    check(len(json.loads(text[0])["rows"]) == rows, "the downloaded JSON has a row for each arm")
    check(text[1].count("\n") >= rows + 1, "the downloaded CSV has a line for each arm")
    kinds = browser.value(FIGURE)
    check(kinds[0] == "<svg" and kinds[1] == "image/png" and kinds[2] > 5000, f"a figure saved as SVG and PNG {kinds}")

    for width in (390, 320):
        browser.open(url, width, "light")
        wide = browser.value("document.documentElement.scrollWidth")
        check(wide <= width, f"nothing sticks out at {width} pixels ({wide})")
        small = browser.value("[...document.querySelectorAll('svg text')].filter((t) => t.checkVisibility()).map((t) => t.getBoundingClientRect().height)")
        check(small and min(small) >= 9, f"text of figures stays readable at {width} pixels ({min(small):.1f})")
    names = browser.value("[...document.querySelectorAll('[role=img], nav, [role=region], input')].every((e) => e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.closest('label'))")
    check(names, "figures, regions and inputs have names")
    browser.call("Emulation.setEmulatedMedia", media="print")
    heads = browser.value("[...document.querySelectorAll('#arms thead th')].every((h) => getComputedStyle(h).position === 'static' && !h.querySelector('button').checkVisibility() && getComputedStyle(h, '::before').content !== 'none')")
    check(heads, "headings of the big table are text on paper, so that each page repeats them")
    browser.call("Emulation.setEmulatedMedia", media="")
    pages = browser.call("Page.printToPDF", printBackground=True)["data"]
    check(len(pages) > 10000, "prints")
    found, outside = browser.complaints()
    check(not found and not outside, f"no error in the console, no outside request {found} {outside}")


def main():
    program, *pages = sys.argv[1:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            for path in pages:
                print(f"== {path}")
                page(browser, path)
        finally:
            browser.process.kill()
            browser.process.wait()


main()
