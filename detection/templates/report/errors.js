"use strict";
(() => {
  const data = report.data("errors");
  const section = document.getElementById("errors");
  const everything = data.names.length; // the row that stands for all classes together
  if (!data.num_objects[everything]) return;

  // In the order of the data; `kind` is what the pictures know it by.
  const KINDS = [
    { kind: 1, name: "class", what: "a box on an object of another class" },
    { kind: 2, name: "localisation", what: "the right class, but an inexact box: its IoU is 0.1 to 0.5" },
    { kind: 3, name: "both", what: "an inexact box and the wrong class" },
    { kind: 4, name: "duplicate", what: "a second box on an object that is found already" },
    { kind: 5, name: "background", what: "a box where there is no object" },
    { kind: "missed", name: "missed", what: "an object that no detection finds, not even nearly" },
  ];
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

  function bar({ kind, name, what }, number, greatest) {
    const gain = data.gains[shown][number];
    const fill = report.element("span", { class: "fill" });
    fill.style.width = `${(100 * gain) / greatest}%`;
    fill.style.background = `var(--kind-${kind})`;
    const count = data.counts[shown][number];
    const errors = kind === "missed" ? counted(count, "object", "objects") : counted(count, "detection", "detections");
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
      `Without any false detection the AP would gain ${falsePositives}, with every object found ${falseNegatives}.`;
  }

  // The tables

  const share = (value) => report.percent(value, 1);
  const binHead = (title) => [
    title, "objects", { label: "found", show: (value) => report.percent(value, 0), title: "objects that were found, at any score" },
    { label: "not found", show: share, title: "share of the lost AP: objects that were not found" },
    { label: "false", show: share, title: "share of the lost AP: false detections" },
  ];

  function binRows({ bins, num_objects, num_found, missing, false: wrong }) {
    return bins.map((name, bin) => {
      const objects = num_objects[shown][bin];
      return [name, objects, objects ? num_found[shown][bin] / objects : null, missing[shown][bin], wrong[shown][bin]];
    });
  }

  const sizes = report.table(part("sizes"), {
    head: binHead("size"), rows: [], sortable: false,
    choose: (row) => report.emit("show-pictures", { kind: "missed", size: SIZES[row], label: label() }),
  });
  const crowding = report.table(part("crowding"), { head: binHead("IoU"), rows: [], sortable: false });

  const classes = report.table(part("all"), {
    head: ["class", "objects", { label: "AP50", show: report.fixed }, ...KINDS.map(({ name, what }) => ({
      label: name, show: report.fixed, title: `gain of AP: ${what}`,
    }))],
    rows: data.names.map((name, number) => {
      return [name, data.num_objects[number], data.ap50[number], ...data.gains[number].slice(0, KINDS.length)];
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
