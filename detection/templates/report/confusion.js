"use strict";
(() => {
  const MOST_SHOWN = 40; // classes with rows and columns at once
  const MOST_LISTED = 12; // confusions in words
  const NUM_LEVELS = 101;
  const data = report.data("confusion");
  const names = data.names;
  const other = names.length; // the place of all other classes
  const background = other + 1; // as a row; as a column, that of missed objects
  const get = (name) => document.getElementById(`confusion-${name}`);

  // Of each cell: places of the true and the detected class, and the detections at every threshold.
  const cells = (() => {
    const [keys, sizes, levels, counts] = ["cells", "sizes", "levels", "counts"].map((name) => report.unpack(data[name]));
    let [key, next] = [0, 0];
    return keys.map((step, cell) => {
      key += step;
      const reached = new Int32Array(NUM_LEVELS);
      for (let level = 0, end = next + sizes[cell]; next < end; next++) {
        level += levels[next];
        reached[level] = counts[next];
      }
      for (let level = NUM_LEVELS - 2; level >= 0; level--) reached[level] += reached[level + 1];
      return { row: Math.floor(key / (other + 2)), column: key % (other + 2), reached };
    });
  })();
  const confusions = cells.filter(({ row, column }) => row < other && column < other && row !== column);

  let level = Math.round(data.score_threshold * (NUM_LEVELS - 1));
  let shares = "rows"; // of what the cells' shades are shares: "rows" or "columns"
  let inPercent = false;
  let grid = null; // what `build` made
  let current = null; // the cell that is read

  const quoted = (place) => (place === other ? "other classes" : `'${names[place]}'`);
  const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);

  // What a cell says in words. `ofRow` and `ofColumn`: objects of the true class, detections of the detected one.
  function sentence(row, column, count, ofRow, ofColumn) {
    if (!count && row === background) return column === background ? "" : `no ${quoted(column)} detected on background`;
    if (!count) return `no ${quoted(row)} ${column === background ? "missed" : `detected as ${quoted(column)}`}`;
    const ofDetected = `${report.percent(ofColumn ? count / ofColumn : null)} of the detections of ${quoted(column)}`;
    if (row === background) return `${count} of ${ofColumn} detections of ${quoted(column)} are on background`;
    const share = report.percent(ofRow ? count / ofRow : null);
    if (column === background) return `${count} of ${ofRow} ${quoted(row)} missed (${share})`;
    return `${count} of ${ofRow} ${quoted(row)} detected as ${quoted(column)} (${share}; ${ofDetected})`;
  }

  // Ask for the pictures of a cell, where it is one of single classes.
  function show(row, column) {
    if (row === other || column === other) return;
    const label = (place) => (place === background ? data.num_classes : data.labels[place]);
    report.emit("show-pictures", {
      trueLabel: label(row), detectedLabel: label(column), minScore: level / (NUM_LEVELS - 1),
    });
  }

  // The places that have rows, in the order of the labels: with a text, the classes of such names and what they are confused
  // with; without, the most confused.
  function placesFor(text) {
    const parts = text.toLowerCase().split(",").map((each) => each.trim()).filter(Boolean);
    let places = [...names.keys()];
    if (parts.length) {
      const matching = new Set(places.filter((place) => parts.some((part) => names[place].toLowerCase().includes(part))));
      const partners = confusions
        .filter(({ row, column }) => matching.has(row) !== matching.has(column))
        .sort((a, b) => b.reached[0] - a.reached[0])
        .map(({ row, column }) => (matching.has(row) ? column : row));
      places = [...new Set([...matching, ...partners])];
    }
    return places.slice(0, MOST_SHOWN).sort((a, b) => data.labels[a] - data.labels[b]);
  }

  // The table, its cells still empty: a row and a column for each place, then for other classes if some are left out, and
  // for background and missed objects.
  function build(places) {
    const order = [...places, ...(places.length < data.num_classes ? [other] : []), background];
    const header = (place, last, scope) => {
      const text = place === background ? last : place === other ? "other classes" : names[place];
      return report.element("th", { scope, title: text, role: `${scope === "col" ? "column" : "row"}header` },
        report.element("span", {}, text));
    };
    const box = (row, column) => {
      const made = report.element("td", { role: "gridcell", tabindex: "-1", class: row === column && row < other && "right" });
      return Object.assign(made, { place: [row, column] });
    };
    const boxes = order.map((row) => order.map((column) => box(row, column)));
    boxes[0][0].tabIndex = 0;
    const corner = report.element("td", {}, "annotated ↓", report.element("br"), "detected as →");
    const top = report.element("tr", {}, corner, ...order.map((place) => header(place, "missed", "col")));
    const lines = boxes.map((line, row) => report.element("tr", {}, header(order[row], "background", "row"), ...line));
    const listeners = { click: open, keydown: press, pointerover: read, focusin: read };
    get("box").replaceChildren(report.element("table", { role: "grid", "aria-label": "Confusion matrix", ...listeners },
      report.element("thead", {}, top), report.element("tbody", {}, ...lines)));
    const at = new Int32Array(other + 2).fill(order.indexOf(other));
    order.forEach((place, position) => { at[place] = position; });
    current = null;
    return { order, at, boxes };
  }

  // What is shown at the threshold: counts by row and column, and the sums of both; the last column is what was missed.
  function count() {
    const size = grid.order.length;
    const counts = Array.from({ length: size }, () => new Int32Array(size));
    for (const { row, column, reached } of cells) counts[grid.at[row]][grid.at[column]] += reached[level];
    const ofRow = new Int32Array(size);
    data.objects.forEach((number, place) => { if (number) ofRow[grid.at[place]] += number; });
    for (let row = 0; row < size - 1; row++) counts[row][size - 1] = ofRow[row] - sum(counts[row]);
    ofRow[size - 1] = sum(counts[size - 1]);
    const ofColumn = counts.map((_, column) => sum(counts.map((row) => row[column])));
    return { counts, ofRow, ofColumn };
  }

  function update() {
    const { counts, ofRow, ofColumn } = count();
    grid.boxes.forEach((line, row) => line.forEach((box, column) => {
      const number = counts[row][column];
      if (!number && box.number === 0) return; // most cells of most matrices
      box.number = number;
      const whole = shares === "rows" ? ofRow[row] : ofColumn[column];
      const share = number ? number / whole : 0;
      const text = !number ? "" : inPercent ? (100 * share).toFixed(share < 0.0995 ? 1 : 0) : String(number);
      if (box.textContent !== text) box.textContent = text;
      // Roots, so that a few per cent can be seen; less than half, so that the text can be read.
      box.style.setProperty("--shade", `${(48 * Math.sqrt(share)).toFixed(1)}%`);
      box.title = sentence(...box.place, number, ofRow[row], ofColumn[column]);
    }));
    list();
    if (current) reading();
  }

  function reading() {
    get("reading").textContent = current.title || "background cannot be missed";
  }

  // The confusions in words, the most frequent first.
  function list() {
    const found = confusions
      .filter(({ reached }) => reached[level])
      .sort((a, b) => b.reached[level] - a.reached[level] || data.objects[a.row] - data.objects[b.row]);
    [...get("list").children].forEach((item, rank) => {
      const confusion = found[rank];
      item.hidden = !confusion;
      if (!confusion) return;
      const { row, column, reached } = confusion;
      const [number, objects] = [reached[level], data.objects[row]];
      const share = report.percent(number / objects).replace(" ", "\u00a0");
      const button = item.firstElementChild;
      button.textContent = `${quoted(row)} detected as ${quoted(column)}: ${number} of ${objects} (${share})`;
      button.place = [row, column];
    });
    get("none").hidden = found.length > 0;
  }

  function read(event) {
    const box = event.target.closest("[role=gridcell]");
    if (!box) return;
    current = box;
    reading();
  }

  function open(event) {
    const box = event.target.closest("[role=gridcell]");
    if (box?.textContent) show(...box.place);
  }

  // Arrows go from cell to cell, Home and End to the ends of a row; one cell at a time is in the order of the tab key.
  function press(event) {
    const box = event.target.closest("[role=gridcell]");
    if (!box) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(event);
      return;
    }
    const row = grid.at[box.place[0]];
    const column = grid.at[box.place[1]];
    const last = grid.order.length - 1;
    const goal = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, last],
    }[event.key];
    const next = goal && grid.boxes[goal[0]]?.[goal[1]];
    if (!goal) return;
    event.preventDefault();
    if (!next) return;
    box.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  function rebuild(text) {
    const places = placesFor(text);
    grid = build(places);
    const left = data.num_classes - places.length;
    const stored = names.length < data.num_classes
      ? ` Only the ${names.length} most often confused can be found here.` : "";
    const which = text.trim() ? "those that match, and those confused with them" : "the most often confused";
    get("note").textContent = left ? `${places.length} of ${data.num_classes} classes are shown: ${which}.${stored}` : "";
    update();
  }

  function controls() {
    const output = report.element("output", {}, (level / 100).toFixed(2));
    const slider = report.element("input", {
      type: "range", min: 0, max: NUM_LEVELS - 1, value: level, "aria-valuetext": output.textContent,
      input: () => {
        level = Number(slider.value);
        output.textContent = (level / 100).toFixed(2);
        slider.setAttribute("aria-valuetext", output.textContent);
        update();
      },
    });
    const options = [["counts", "counts"], ["rows", "% of annotated class"], ["columns", "% of detected class"]];
    const cellsShow = report.choice("cells show", options, (value) => {
      inPercent = value !== "counts";
      shares = value === "columns" ? "columns" : "rows";
      update();
    });
    const filter = report.element("input", { type: "search", autocomplete: "off", placeholder: "cat, dog", input: () => rebuild(filter.value) });
    get("controls").append(report.element("label", {}, "score threshold", slider, output), cellsShow);
    if (data.num_classes > 8) get("controls").append(report.element("label", {}, "classes", filter));
  }

  controls();
  for (let number = 0; number < MOST_LISTED; number++) {
    const button = report.element("button", { type: "button", click: () => show(...button.place) });
    get("list").append(report.element("li", {}, button));
  }
  rebuild("");
})();
