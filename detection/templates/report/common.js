"use strict";
// What the scripts of all sections share. Text from data enters the page as text alone: never as markup.
const report = (() => {
  const listeners = new Map();

  // The data of a section, as its Python module made them.
  function data(name) {
    return JSON.parse(document.getElementById(`data-${name}`).textContent);
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
  // theme changes. `series`: {label, values, dash, width, points}; null in `values` is a gap. `x`: {label, values, range}.
  function plot(place, { x, y, series, height = 260 }) {
    const chart = element("div");
    place.append(chart);
    let drawn = null;

    function axis(label, size) {
      return {
        label, size, labelSize: 20, stroke: themed("--faint"), font: "12px system-ui", labelFont: "12px system-ui",
        grid: { stroke: themed("--line"), width: 1 }, ticks: { stroke: themed("--line"), width: 1 },
      };
    }

    function draw() {
      drawn?.destroy();
      drawn = new uPlot({
        width: Math.max(chart.clientWidth, 200), height,
        scales: { x: { time: false, range: x.range }, y: { range: y.range } },
        axes: [axis(x.label, 36), axis(y.label, 52)],
        series: [
          { label: x.label, value: (_, value) => (value === null ? "–" : `${+value.toPrecision(4)}`) },
          ...series.map((each, number) => ({
            label: each.label, stroke: each.color ? themed(each.color) : color(number), width: each.width ?? 1.5,
            dash: each.dash, spanGaps: each.spanGaps ?? false, points: { show: each.points ?? false },
            value: (_, value) => fixed(value),
          })),
        ],
      }, [x.values, ...series.map((each) => each.values)], chart);
    }

    draw();
    new ResizeObserver(() => {
      if (chart.clientWidth && chart.clientWidth !== drawn.width) drawn.setSize({ width: chart.clientWidth, height });
    }).observe(chart);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    return { get chart() { return drawn; }, redraw: draw };
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

  return { choice, classChoice, data, on, emit, element, themed, color, percent, fixed, plot };
})();
