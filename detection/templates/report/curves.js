"use strict";
(() => {
  const data = report.data("curves");
  const { names, recalls } = data;
  const get = (name) => document.getElementById(`curves-${name}`);
  const titles = ["IoU 0.5", "IoU 0.75", "mean of IoU 0.5 to 0.95"];
  const columns = [data.ap50, data.ap75, data.ap];

  // The curves of a packed text, one after the other, in thousandths.
  function curvesOf(text) {
    let value = 0;
    return report.unpack(text).map((fall, point) => {
      value = (point % recalls ? value : 1000) - fall;
      return value;
    });
  }

  const ofAll = curvesOf(data.mean);
  const ofClasses = curvesOf(data.curves);
  const withObjects = names.map((_, label) => label).filter((label) => data.objects[label]);
  const position = new Map(withObjects.map((label, number) => [label, number]));

  // The mean of a column of AP over the classes that have objects, null without any.
  function mean(column) {
    const values = column.filter((value) => value !== null);
    return values.length ? values.reduce((sum, each) => sum + each, 0) / values.length : null;
  }

  // One of the curves of a class, null for all: [number] of the five.
  function curve(label, number) {
    if (label !== null && !position.has(label)) return Array(recalls).fill(null);
    if (label === null && !withObjects.length) return Array(recalls).fill(null);
    const [values, first] = label === null ? [ofAll, number] : [ofClasses, position.get(label) * 5 + number];
    return Array.from(values.slice(first * recalls, (first + 1) * recalls), (each) => each / 1000);
  }

  function series(label) {
    return titles.map((title, number) => {
      const scores = label !== null && number < 2 ? curve(label, 3 + number) : null;
      const ap = label === null ? mean(columns[number]) : columns[number][label];
      const score = (index) => (scores?.[index] ? `, score ${(scores[index] * data.score_unit).toFixed(2)}` : "");
      return {
        label: `${title}: AP ${report.fixed(ap)}`, values: curve(label, number), width: number === 2 ? 2.5 : 1.5,
        dash: [[], [7, 4], []][number], show: (value, index) => report.fixed(value) + (value ? score(index) : ""),
      };
    });
  }

  const chart = report.plot(get("chart"), {
    x: { label: "recall", values: Array.from({ length: recalls }, (_, point) => point / (recalls - 1)), range: [0, 1] },
    y: { label: "precision", range: [0, 1.02] },
    series: series(null), height: 340,
  });

  function choose(label) {
    get("title").textContent = label === null ? "all classes (mean)" : names[label];
    get("empty").hidden = label === null ? withObjects.length > 0 : position.has(label);
    chart.show(series(label));
    select.value = label === null ? "" : String(label);
    table.mark(label);
  }

  const control = report.classChoice(names, choose, "all (mean)");
  const select = control.querySelector("select");
  get("controls").append(control);
  const table = report.table(get("table"), {
    head: [
      "class",
      { label: "AP", show: report.fixed, title: "mean over IoU 0.5, 0.55, ..., 0.95" },
      { label: "AP50", show: report.fixed, title: "at IoU 0.5" },
      { label: "AP75", show: report.fixed, title: "at IoU 0.75" },
      { label: "objects", title: "objects to find" },
      { label: "detections", title: "of any score, at most 100 of an image" },
    ],
    rows: names.map((name, label) => [
      name, data.ap[label], data.ap50[label], data.ap75[label], data.objects[label], data.detections[label],
    ]),
    filter: names.length > 8 ? "find a class" : null, choose, limit: 100,
  });
  choose(null);
})();
