"use strict";
(() => {
  // Colour scheme: the system's until the reader chooses.
  const scheme = document.getElementById("scheme");
  const schemes = ["system", "light", "dark"];
  let current = 0;
  scheme.hidden = false;
  scheme.addEventListener("click", () => {
    current = (current + 1) % schemes.length;
    document.documentElement.dataset.scheme = schemes[current];
    scheme.textContent = "Scheme: " + schemes[current];
  });

  // Sorting: a heading becomes a button. Cells without a figure stay at the end either way.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  };
  const order = (column, numeric, sign) => (a, b) => {
    if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
    const [x, y] = [key(a, column), key(b, column)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  };
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      // On paper the heading is text again: browsers do not repeat buttons on the next page.
      button.textContent = head.dataset.title = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("n");
        const first = numeric ? "descending" : "ascending";
        const second = numeric ? "ascending" : "descending";
        const direction = head.getAttribute("aria-sort") === first ? second : first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(order(column, numeric, direction === "ascending" ? 1 : -1)));
      });
    });
  };

  // Filtering: every word must occur somewhere in the row.
  const filterable = (box) => {
    const tools = box.querySelector(".tools");
    const rows = [...box.querySelector("tbody").rows].map((row) => [row, row.textContent.toLowerCase()]);
    const status = tools.querySelector("[role=status]");
    const input = tools.querySelector("input");
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      status.textContent = shown + " of " + rows.length + " arms";
    };
    input.addEventListener("input", apply);
    tools.hidden = false;
    apply();
  };
  for (const box of document.querySelectorAll(".interactive")) {
    sortable(box.querySelector("table"));
    filterable(box);
  }

  // Downloads of the data inside of this page, which it holds compressed.
  const unpack = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("raw").textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const csv = (raw) => {
    const { rows } = JSON.parse(raw);
    const names = rows.length ? Object.keys(rows[0]) : [];
    const field = (value) => {
      // A spreadsheet would run a text that begins like a formula.
      const guard = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'" : "";
      const text = value === null ? "" : guard + value;
      return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
    };
    return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(field).join(",")).join("\n") + "\n";
  };
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const button of document.querySelectorAll(".downloads button")) {
    button.addEventListener("click", async () => {
      const kind = button.dataset.as;
      const raw = await unpack();
      save(new Blob([kind === "csv" ? csv(raw) : raw], { type: kind === "csv" ? "text/csv" : "application/json" }), "report." + kind);
    });
  }
  document.querySelector(".downloads").hidden = false;

  // A figure by itself: with the colours it has now, on the paper it lies on.
  const alone = (svg) => {
    const copy = svg.cloneNode(true);
    const parts = copy.querySelectorAll("*");
    svg.querySelectorAll("*").forEach((part, i) => {
      const style = getComputedStyle(part);
      for (const name of ["fill", "stroke"]) parts[i].setAttribute(name, style[name]);
      if (part.tagName === "text") parts[i].setAttribute("font-family", "sans-serif");
      parts[i].removeAttribute("class");
    });
    const paper = document.createElementNS(svg.namespaceURI, "rect");
    paper.setAttribute("width", "100%");
    paper.setAttribute("height", "100%");
    paper.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
    copy.prepend(paper);
    return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
  };
  const png = (svg, name) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * svg.width.baseVal.value, 2 * svg.height.baseVal.value];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      URL.revokeObjectURL(image.src);
      canvas.toBlob((blob) => save(blob, name), "image/png");
    };
    image.src = URL.createObjectURL(alone(svg));
  };
  for (const box of document.querySelectorAll(".save")) {
    const svg = box.closest("figure").querySelector(".wide svg");
    const [asSvg, asPng] = box.querySelectorAll("button");
    asSvg.setAttribute("aria-label", "Save this figure as SVG");
    asPng.setAttribute("aria-label", "Save this figure as PNG");
    asSvg.addEventListener("click", () => save(alone(svg), box.dataset.name + ".svg"));
    asPng.addEventListener("click", () => png(svg, box.dataset.name + ".png"));
    box.hidden = false;
  }
})();
