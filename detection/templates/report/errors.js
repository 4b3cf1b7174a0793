"use strict";
(() => {
  const data = report.data("errors");
  const section = document.getElementById("errors");
  const everything = data.names.length; // the row that stands for all classes together
  if (!data.num_objects[everything]) return;

  // In the order of the data.
  const KINDS = report.kinds.map((each, kind) => ({ ...each, kind })).filter(({ kind }) => report.isError(kind));
  const SIZES = ["small", "medium", "large"];
  let shown = everything;

  const chooser = report.classChoice(data.names, (label) => show(label ?? everything));
  section.querySelector(".controls").append(chooser);

  function part(name) {
    return section.querySelector(`.${name}`);
  }

  function label() {
    return shown === everything ? null : shown;
  }

  // The bars

  function counted(number, one, many) {
    return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
  }

  function bar({ kind, name, what, color }, number, greatest) {
    const gain = data.gains[shown][number];
    const fill = report.element("span", { class: "fill" });
    fill.style.width = `${(100 * gain) / greatest}%`;
    fill.style.background = `var(${color})`;
    const count = data.counts[shown][number];
    const errors = kind === report.MISSED ? counted(count, "object", "objects") : counted(count, "detection", "detections");
    return report.element(
      "button", { type: "button", click: () => report.emit("show-pictures", { kind, label: label() }), disabled: count === 0 },
      report.element("span", { class: "name" }, name, report.element("span", { class: "faint" }, what)),
      report.element("span", { class: "track" }, fill),
      report.element("span", { class: "value" }, `+${report.fixed(gain)} AP`),
      report.element("span", { class: "faint numbers-of" }, `${report.percent(data.shares[shown][number], 0)} of the lost AP, ${errors}`),
    );
  }

  function showBars() {
    const gains = data.gains[shown];
    const shares = data.shares[shown];
    const order = [...KINDS.keys()].sort((a, b) => gains[b] - gains[a] || shares[b] - shares[a]);
    const greatest = Math.max(...order.map((number) => gains[number])) || 1;
    part("bars").replaceChildren(...order.map((number) => bar(KINDS[number], number, greatest)));
    const [falsePositives, falseNegatives] = gains.slice(KINDS.length).map((gain) => report.fixed(Math.max(gain, 0)));
    part("special").textContent =
      `Without false positives AP would gain ${falsePositives}; with every object found, ${falseNegatives}.`;
  }

  // The tables

  const share = (value) => report.percent(value, 1);
  const binHead = (title) => [
    title, "objects", { label: "found", show: (value) => report.percent(value, 0), title: "objects found at any score" },
    { label: "not found", show: share, title: "share of the lost AP from objects not found" },
    { label: "false", show: share, title: "share of the lost AP from false positives" },
  ];

  function binRows({ bins, num_objects, num_found, missing, false: wrong }) {
    return bins.map((name, bin) => {
      const objects = num_objects[shown][bin];
      return [name, objects, objects ? num_found[shown][bin] / objects : null, missing[shown][bin], wrong[shown][bin]];
    });
  }

  const sizes = report.table(part("sizes"), {
    head: binHead("size"), rows: [], sortable: false,
    choose: (row) => report.emit("show-pictures", { kind: report.MISSED, size: SIZES[row], label: label() }),
  });
  const crowding = report.table(part("crowding"), { head: binHead("IoU"), rows: [], sortable: false });

  const classes = report.table(part("all"), {
    head: ["class", "objects", { label: "AP50", show: report.fixed }, ...KINDS.map(({ name, what }) => ({
      label: name, show: report.fixed, title: `AP gain: ${what}`,
    }))],
    rows: data.names.map((name, number) => {
      const gains = data.gains[number].slice(0, KINDS.length);
      const objects = data.num_objects[number];
      return [name, objects, data.ap50[number], ...(objects ? gains : gains.map(() => null))];
    }),
    filter: "find a class", sort: { column: 2, descending: false }, limit: 20, choose: (number) => {
      chooser.querySelector("select").value = String(number);
      show(number);
    },
  });

  function show(row) {
    shown = row;
    showBars();
    sizes.show(binRows(data.sizes));
    crowding.show(binRows(data.crowding));
    classes.mark(shown);
  }

  show(everything);
})();
