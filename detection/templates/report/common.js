"use strict";
// What the scripts of all sections share. Text from data enters the page as text alone: never as markup.
const report = (() => {
  const listeners = new Map();

  // What a detection can be, by the numbers of ErrorKind, and last what an object can be: missed.
  const kinds = [
    { name: "correct", what: "a box that finds an object", color: "--kind-0" },
    { name: "class", what: "a box on an object of another class", color: "--kind-1" },
    { name: "localisation", what: "the right class, but an inexact box: IoU 0.1 to 0.5", color: "--kind-2" },
    { name: "both", what: "an inexact box and the wrong class", color: "--kind-3" },
    { name: "duplicate", what: "a second box on an object that is already found", color: "--kind-4" },
    { name: "background", what: "a box where there is no object", color: "--kind-5" },
    { name: "ignored", what: "a box on a crowd or a difficult object: not counted", color: "--kind-6" },
    { name: "missed", what: "an object that no detection finds, not even nearly", color: "--kind-missed" },
  ];
  const MISSED = kinds.length - 1;
  const isError = (kind) => (kind >= 1 && kind <= 5) || kind === MISSED;

  // The data of a section, as its Python module made them.
  function data(name) {
    return JSON.parse(document.getElementById(`data-${name}`).textContent);
  }

  // The numbers of a text that `packed_small` of packed.py made.
  function unpack(text) {
    const numbers = [];
    let [value, place] = [0, 1];
    for (const letter of atob(text)) {
      const byte = letter.charCodeAt(0);
      value += (byte & 127) * place;
      place *= 128;
      if (byte < 128) {
        numbers.push(value);
        [value, place] = [0, 1];
      }
    }
    return numbers;
  }

  // Call `act` with what is emitted under a name.
  function on(name, act) {
    if (!listeners.has(name)) listeners.set(name, []);
    listeners.get(name).push(act);
  }

  function emit(name, value) {
    for (const act of listeners.get(name) ?? []) act(value);
  }

  // An element with attributes, properties that are functions as listeners, and children: elements or text.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  }

  // A colour of the page, as "--text".
  function themed(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // The colour of a series, by its number.
  function color(number) {
    return themed(`--series-${(number % 8) + 1}`);
  }

  function percent(value, digits = 1) {
    return value === null || Number.isNaN(value) ? "–" : `${(100 * value).toFixed(digits)} %`;
  }

  function fixed(value, digits = 3) {
    return value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);
  }

  // Lines against one axis, with the values under the pointer in the legend; as wide as `place`, redrawn when that or the
  // theme changes. `series`: {label, values, color, dash, width, points, marker, bars, spanGaps, show}, where markers are large
  // single points, bars have a colour, and `show` makes the legend's text of a value and its number; null in `values` is a gap.
  // `x`: {label, values, range, show}. The left and right arrow keys go from value to value. Returns {chart, redraw(),
  // show(series, x)}: the last puts other lines in place of these.
  function plot(place, { x, y, series, height = 260 }) {
    const chart = element("div", { tabindex: 0, role: "group", keydown: step });
    place.append(chart);
    let drawn = null;

    function axis(label, size) {
      return {
        label, size, labelSize: 20, stroke: themed("--faint"), font: "12px system-ui", labelFont: "12px system-ui",
        grid: { stroke: themed("--line"), width: 1 }, ticks: { stroke: themed("--line"), width: 1 },
      };
    }

    function line(each, number) {
      const stroke = each.color ? themed(each.color) : color(number);
      const show = each.show ?? ((value) => fixed(value));
      return {
        label: each.label, stroke, width: each.width ?? 1.5, dash: each.dash, spanGaps: each.spanGaps ?? false,
        points: { show: each.points ?? each.marker ?? false, size: each.marker ? 12 : 6, fill: stroke },
        ...(each.bars ? { paths: uPlot.paths.bars({ size: [0.9] }), fill: themed(each.bars) } : {}),
        value: (_, value, __, index) => (index === null ? "" : isMissing(value) ? "–" : show(value, index)),
      };
    }

    function draw() {
      drawn?.destroy();
      const showX = x.show ?? ((value) => `${+value.toPrecision(4)}`);
      drawn = new uPlot({
        width: Math.max(chart.clientWidth, 200), height,
        scales: { x: { time: false, range: x.range }, y: { range: y.range } },
        axes: [axis(x.label, 36), axis(y.label, 52)],
        series: [{ label: x.label, value: (_, value) => (isMissing(value) ? "" : showX(value)) }, ...series.map(line)],
        legend: { markers: { dash: (_, number) => (series[number - 1]?.dash?.length ? "dashed" : "solid") } },
      }, [x.values, ...series.map((each) => each.values)], chart);
      chart.setAttribute("aria-label", `chart: ${y.label || "values"} against ${x.label}`);
    }

    function step(event) {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!direction || !x.values.length) return;
      event.preventDefault();
      const before = drawn.cursor.idx ?? (direction > 0 ? -1 : x.values.length);
      const next = Math.min(Math.max(before + direction, 0), x.values.length - 1);
      drawn.setCursor({ left: drawn.valToPos(x.values[next], "x"), top: 0 });
    }

    draw();
    new ResizeObserver(() => {
      if (chart.clientWidth && chart.clientWidth !== drawn.width) drawn.setSize({ width: chart.clientWidth, height });
    }).observe(chart);
    for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", draw);
    return {
      get chart() { return drawn; },
      redraw: draw,
      show: (others, otherX = x) => { [series, x] = [others, otherX]; draw(); },
    };
  }

  // A labelled choice: `options` are [value, text]; `choose` hears the value, a string.
  function choice(label, options, choose) {
    const select = element("select", { change: () => choose(select.value) });
    select.append(...options.map(([value, text]) => element("option", { value }, text)));
    return element("label", {}, label, select);
  }

  // A choice among the classes by their numbers; with `all`, null stands for all of them together.
  function classChoice(names, choose, all = "all classes") {
    const options = names.map((name, number) => [String(number), name]);
    return choice("class", all ? [["", all], ...options] : options, (value) => choose(value === "" ? null : Number(value)));
  }

  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // The order of two values of a table; texts and numbers do not meet in one column.
  function compare(a, b) {
    return typeof a === "string" ? collator.compare(a, b) : a - b;
  }

  function isMissing(value) {
    return value === null || value === undefined || Number.isNaN(value);
  }

  // A table of many rows: a box that filters them, columns sorted by a click on their heads, the first `limit` rows at first.
  // `head`: a label or {label, show, title} for each column, where `show` makes a value's text and `title` explains the column.
  // `rows`: arrays of texts, numbers, and null for nothing, which stands last in any order. `filter`: the label of the box, or
  // null for none; it looks in the columns of text. `sort`: {column, descending} at the start. `choose` hears the number of a
  // row, as given, when it is clicked: the first column is then one of buttons. Returns {show(rows), mark(number)}: other rows
  // in place of these, and the row that is marked as chosen.
  function table(place, { head, rows, sortable = true, filter = null, sort = null, limit = 200, choose = null }) {
    const columns = head.map((each) => (typeof each === "string" ? { label: each } : each));
    const wanted = element("input", { type: "search", input: () => refresh(), autocomplete: "off" });
    const count = element("span", { class: "faint", role: "status" });
    const more = element("button", { type: "button", class: "more", click: () => refresh(shown + limit) }, "show more");
    const body = element("tbody");
    const heads = columns.map(({ label, title }, column) => {
      const content = sortable ? element("button", { type: "button", class: "sort", click: () => order(column) }, label) : label;
      return element("th", { scope: "col", title }, content);
    });
    let shown = limit;
    let marked = null;

    function order(column) {
      const descending = sort?.column === column ? !sort.descending : rows.some((row) => typeof row[column] === "number");
      sort = { column, descending };
      refresh();
    }

    // The numbers of the rows that pass the filter, in the order that was chosen.
    function selected() {
      const text = wanted.value.trim().toLowerCase();
      const passes = (row) => row.some((value) => typeof value === "string" && value.toLowerCase().includes(text));
      const numbers = [...rows.keys()].filter((number) => !text || passes(rows[number]));
      if (!sort) return numbers;
      const sign = sort.descending ? -1 : 1;
      return numbers.sort((a, b) => {
        const [left, right] = [rows[a][sort.column], rows[b][sort.column]];
        if (isMissing(left) || isMissing(right)) return isMissing(left) - isMissing(right);
        return sign * compare(left, right);
      });
    }

    function cell(number, column) {
      const value = rows[number][column];
      const text = columns[column].show ? columns[column].show(value) : isMissing(value) ? "–" : String(value);
      const shown = typeof value === "string" ? element("span", { class: "clamped", title: text }, text) : text;
      const content = choose && column === 0 ? element("button", { type: "button", class: "row" }, shown) : shown;
      return element("td", { class: typeof value === "string" && "text" }, content);
    }

    function line(number) {
      const made = element("tr", choose ? { click: () => choose(number) } : {}, ...columns.map((_, column) => cell(number, column)));
      made.dataset.row = number;
      return made;
    }

    function mark(number) {
      marked = number;
      for (const each of body.rows) {
        if (Number(each.dataset.row) === marked) each.setAttribute("aria-current", "true");
        else each.removeAttribute("aria-current");
      }
    }

    function refresh(most = limit) {
      shown = most;
      const numbers = selected();
      const visible = numbers.slice(0, shown);
      body.replaceChildren(...visible.map(line));
      heads.forEach((each, column) => {
        if (sort?.column === column) each.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
        else each.removeAttribute("aria-sort");
      });
      more.hidden = visible.length === numbers.length;
      const all = visible.length === rows.length;
      count.textContent = all ? "" : `${visible.length} of ${rows.length} rows`;
      mark(marked);
    }

    refresh();
    const box = filter ? element("label", {}, filter, wanted) : "";
    const made = element("table", { class: "rows" }, element("thead", {}, element("tr", {}, ...heads)), body);
    place.append(element("div", { class: "controls" }, box, count), element("div", { class: "wide" }, made), more);
    return { mark, show: (others) => { rows = others; refresh(); } };
  }

  return { MISSED, choice, classChoice, data, on, emit, element, themed, color, percent, fixed, isError, kinds, plot, table, unpack };
})();
