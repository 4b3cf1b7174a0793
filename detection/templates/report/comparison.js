"use strict";
// Tables of all classes, and the curves of the runs; all else on the page needs no script.
(() => {
  const data = report.data("comparison");

  function signed(value) {
    if (value === null) return "–";
    const text = report.fixed(Math.abs(value));
    return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
  }

  function fillTable(place) {
    const number = Number(place.dataset.number);
    const table = data.tables[number];
    const other = data.detectors[number + 1];
    report.table(place, {
      head: [
        { label: "class" },
        { label: "images", title: "that have objects of the class" },
        { label: "A", title: "AP, mean of IoU .5 to .95", show: (value) => report.fixed(value) },
        { label: other, title: "AP, mean of IoU .5 to .95", show: (value) => report.fixed(value) },
        { label: `${other} − A`, show: signed },
        { label: "from", title: "the 95 % interval's lower end", show: signed },
        { label: "to", title: "the 95 % interval's upper end", show: signed },
        { label: `${other} better in`, title: "of the resamples", show: (value) => report.percent(value, 0) },
        { label: "interval excludes 0" },
      ],
      rows: table.labels.map((label, row) => [
        data.names[label], table.images[row], table.first[row], table.second[row], table.second[row] - table.first[row],
        table.low[row], table.high[row], table.better[row], table.verdicts[row],
      ]),
      filter: "filter",
      sort: { column: 4, descending: true },
    });
  }

  function drawCurves(place, curves) {
    const chart = report.element("div", { class: "chart" }, report.element("h3", {}, curves.title));
    place.append(chart);
    report.plot(chart, {
      x: { label: "step", values: curves.steps },
      y: { label: curves.title },
      series: curves.values.map((values, number) => ({
        label: data.detectors[curves.detectors[number]], values, spanGaps: true, points: curves.points,
        color: `--series-${(curves.detectors[number] % 8) + 1}`,
      })),
    });
  }

  document.querySelectorAll(".class-table").forEach(fillTable);
  for (const curves of data.curves) drawCurves(document.getElementById("curves"), curves);
})();
