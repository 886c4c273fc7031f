// Sorts the leaderboard, follows a trial through the parameters, saves figures and numbers. Without it all is readable.
const report = JSON.parse(document.getElementById("report-data").textContent);

// A press on a column's head sorts by it; a second press turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
    return typeof a === "number" ? -1 : 1;
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      const known = rows.filter(([value]) => value !== "" && value !== "-").sort((a, b) => turn * compare(a[0], b[0]));
      const unknown = rows.filter(([value]) => value === "" || value === "-");
      body.append(...known.map(([, row]) => row), ...unknown.map(([, row]) => row));
    });
  });
}

// How far a point is from a line through points.
const distance = (points, at) => {
  let least = Infinity;
  for (let index = 1; index < points.numberOfItems; index += 1) {
    const [a, b] = [points.getItem(index - 1), points.getItem(index)];
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    const share = Math.min(1, Math.max(0, ((at.x - a.x) * dx + (at.y - a.y) * dy) / (dx * dx + dy * dy || 1)));
    least = Math.min(least, Math.hypot(at.x - a.x - share * dx, at.y - a.y - share * dy));
  }
  return least;
};

// A trial chosen in the list, or by a press near its line, is drawn on top and its values are written out.
for (const picker of document.querySelectorAll(".picker")) {
  const figure = picker.closest("figure");
  const select = picker.querySelector("select");
  const lines = new Map([...figure.querySelectorAll(".way")].map((line) => [line.dataset.trial, line]));
  const homes = new Map([...lines].map(([trial, line]) => [trial, line.nextSibling]));
  const short = (value) => (typeof value === "number" && !Number.isInteger(value) ? String(+value.toPrecision(4)) : String(value));
  const show = (trial) => {
    for (const [other, line] of lines) {
      if (!line.classList.contains("picked")) continue;
      line.classList.remove("picked");
      homes.get(other)?.before(line);
    }
    const row = report.leaderboard.find((one) => String(one.trial) === trial);
    const said = picker.querySelector(".followed");
    select.value = row ? trial : "";
    said.textContent = "";
    if (!row) return;
    const line = lines.get(trial);
    line.classList.add("picked");
    [...lines.values()].filter((one) => one !== line).at(-1)?.after(line);
    const score = row.dev.score === null ? "no score" : `dev ${short(row.dev.score)}`;
    const rank = row.rank === null ? "" : `, number ${row.rank}`;
    const used = Object.entries(row.params).filter(([name]) => !row.unused.includes(name));
    const values = used.map(([name, value]) => `${name.replace(/^objective\.|^training\./, "")} ${short(value)}`);
    said.textContent = `Trial ${trial}: ${row.outcome.replaceAll("_", " ")}, ${score}${rank}. ${values.join(", ")}.`;
  };
  select.addEventListener("change", () => show(select.value));
  const drawing = figure.querySelector("svg");
  drawing.addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    const far = [...lines].map(([trial, line]) => [distance(line.points, at), trial]).sort(([a], [b]) => a - b);
    show(far[0][0] < 12 ? far[0][1] : "");
  });
  picker.hidden = false;
}

// Saving: everything comes from this page, nothing is asked of a network.
const save = (name, blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${report.study.name}-${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
const standalone = (figure) => {
  const colors = getComputedStyle(document.documentElement);
  const style = document.getElementById("figure-style").textContent;
  const written = style.replace(/var\((--[\w-]+)\)/g, (_, name) => colors.getPropertyValue(name).trim());
  const svg = figure.querySelector("svg").cloneNode(true);
  const margin = 10;
  const [width, height] = [svg.viewBox.baseVal.width + 2 * margin, svg.viewBox.baseVal.height + 2 * margin];
  svg.setAttribute("viewBox", `${-margin} ${-margin} ${width} ${height}`);
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.removeAttribute("class");
  const element = (tag, text, attributes = {}) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const paper = colors.getPropertyValue("--paper").trim();
  svg.prepend(
    element("title", figure.querySelector(".title").textContent),
    element("desc", figure.querySelector("figcaption").textContent),
    element("style", written),
    element("rect", "", { x: -margin, y: -margin, width, height, fill: paper }),
  );
  return { text: new XMLSerializer().serializeToString(svg), width, height };
};
const makers = {
  svg: (block) => new Blob([standalone(block).text], { type: "image/svg+xml" }),
  png: async (block) => {
    const { text, width, height } = standalone(block);
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    const zoom = 3;
    canvas.width = Math.ceil(width * zoom);
    canvas.height = Math.ceil(height * zoom);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  },
  csv: (block) => {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const text = (cell) => {
      const parts = [...cell.childNodes].filter((part) => !part.classList?.contains("below")); // stands in other columns
      return parts.map((part) => part.textContent.trim()).join(" ");
    };
    const rows = [...block.querySelector("table").rows].map((row) =>
      [...row.cells].map((cell) => quoted(cell.dataset.value ?? text(cell))).join(","),
    );
    return new Blob([`${rows.join("\n")}\n`], { type: "text/csv" });
  },
  json: (block) => new Blob([JSON.stringify(report[block.dataset.source], null, 1)], { type: "application/json" }),
  all: () => new Blob([JSON.stringify(report, null, 1)], { type: "application/json" }),
};
for (const saves of document.querySelectorAll(".saves")) {
  const block = saves.closest("[data-name]");
  for (const button of saves.querySelectorAll("button")) {
    const kind = button.dataset.save;
    button.addEventListener("click", async () => {
      save(`${block.dataset.name}.${kind === "all" ? "json" : kind}`, await makers[kind](block));
    });
  }
  saves.hidden = false;
}
