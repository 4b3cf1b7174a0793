"use strict";
(() => {
  const data = report.data("thresholds");
  const section = document.getElementById("thresholds");
  const all = data.names.length; // the number that stands for all classes together
  if (!data.thresholds[all].length) return;

  const everything = [...data.names.keys(), all];
  const curves = everything.map((label) => data.thresholds[label].map((_, point) => operation(label, point)));
  let label = all;
  let wanted = 0.9;

  // What the detector does at a point of a curve; the counts are exact, so are these.
  function operation(label, point) {
    const [right, counted, objects] = [data.num_true[label][point], data.num_detections[label][point], data.num_objects[label]];
    return {
      threshold: data.thresholds[label][point], right, counted, objects,
      precision: right / counted, recall: right / Math.max(objects, 1), f1: (2 * right) / (counted + objects),
    };
  }

  function best(label) {
    return data.best[label] === null ? null : curves[label][data.best[label]];
  }

  // The lowest threshold whose precision is at least the wanted one.
  function forPrecision(label) {
    return curves[label].find((each) => each.precision >= wanted) ?? null;
  }

  // A number without an exponent, as few digits as name it.
  function numberText(value) {
    const [digits, exponent] = String(Math.abs(value)).split("e-");
    const sign = value < 0 ? "-" : "";
    return sign + (exponent ? `0.${"0".repeat(exponent - 1)}${digits.replace(".", "")}` : digits);
  }

  // A threshold for a table: four digits tell enough.
  function short(value) {
    return value === null ? "–" : numberText(Number(value.toFixed(4)));
  }

  // The choices

  const controls = section.querySelector(".controls");
  const shownWanted = report.element("output");
  const slider = report.element("input", {
    type: "range", min: 0.5, max: 0.99, step: 0.01, value: wanted, input: () => choose(label, Number(slider.value)),
  });
  const classes = report.classChoice(data.names, (number) => choose(number ?? all, wanted));
  controls.append(classes, report.element("label", {}, "wanted precision", slider, shownWanted));

  function box(title, value, words) {
    const shown = report.element("dd", {}, value, report.element("span", { class: "faint" }, words));
    return report.element("div", {}, report.element("dt", {}, title), shown);
  }

  function choiceBox(title, found, otherwise) {
    if (found === null) return box(title, "–", otherwise);
    const share = (value, whole) => `${report.fixed(value)} (${found.right} of ${whole})`;
    const rates = `precision ${share(found.precision, found.counted)}, recall ${share(found.recall, found.objects)}`;
    return box(title, numberText(found.threshold), `${rates}, F1 ${report.fixed(found.f1)}`);
  }

  function showChoices() {
    const without = (reason) => (data.num_objects[label] ? reason : "no object to find");
    section.querySelector(".choices").replaceChildren(
      choiceBox("threshold with the best F1", best(label), without("no detection is right")),
      choiceBox(`lowest threshold with precision ≥ ${wanted.toFixed(2)}`, forPrecision(label), without("no threshold reaches it")),
      box("expected calibration error (ECE)", report.fixed(data.error[label]), verdict()));
  }

  // The curves

  const x = { label: "score threshold", values: [], range: [0, 1] };
  const series = [
    { label: "precision", color: "--series-1" }, { label: "recall", color: "--series-2", dash: [8, 4] },
    { label: "F1", color: "--series-3", width: 2.5 },
    { label: "best F1", color: "--series-3", marker: true }, { label: "wanted precision", color: "--series-1", marker: true },
  ];

  function fillCurves() {
    const curve = curves[label];
    const [top, asked] = [best(label), forPrecision(label)];
    x.values = curve.map((each) => each.threshold);
    x.range = [Math.min(0, ...x.values.slice(0, 1)), Math.max(1, ...x.values.slice(-1))]; // scores of others may be any numbers
    const values = [(each) => each.precision, (each) => each.recall, (each) => each.f1,
      (each) => (each === top ? each.f1 : null), (each) => (each === asked ? each.precision : null)];
    series.forEach((each, number) => { each.values = curve.map(values[number]); });
  }

  // Calibration

  const numBins = data.bin_counts[all].length;
  const binX = { label: "mean score of a bin", values: [], range: [0, 1] };
  const binSeries = [
    { label: "precision", color: "--series-1", points: true, spanGaps: true },
    { label: "perfect", color: "--faint", dash: [4, 4], spanGaps: true },
  ];
  const shareX = { label: "score", values: [...Array(numBins).keys()].map((bin) => (bin + 0.5) / numBins), range: [0, 1] };
  const shareSeries = [{ label: "share of detections", color: "--faint", bars: "--line" }];

  function fillBins() {
    const filled = [...Array(numBins).keys()].filter((bin) => data.bin_counts[label][bin]);
    const counted = data.bin_counts[label].reduce((sum, count) => sum + count, 0);
    binX.values = [0, ...filled.map((bin) => data.bin_scores[label][bin]), 1];
    binSeries[0].values = [null, ...filled.map((bin) => data.bin_precision[label][bin]), null];
    binSeries[1].values = binX.values;
    shareSeries[0].values = data.bin_counts[label].map((count) => count / Math.max(counted, 1));
  }

  function verdict() {
    const [error, bias] = [data.error[label], data.bias[label]];
    if (error === null) return `no detection scores above ${data.least_score}`;
    const precision = data.bin_precision[label];
    const gaps = data.bin_scores[label].map((score, bin) => (score === null ? -1 : Math.abs(score - precision[bin])));
    const bin = gaps.indexOf(Math.max(...gaps));
    const greatest = `by ${report.fixed(gaps[bin], 2)} (${data.bin_counts[label][bin]} detections)`;
    return `${verdictWords(error, bias)}; worst at scores of ${binText(bin)}, ${greatest}`;
  }

  function verdictWords(error, bias) {
    if (error < 0.02) return "scores match precision";
    const mixed = Math.abs(bias) < 0.8 * error;
    if (mixed) return `scores differ from precision by ${report.fixed(error, 2)} on average, some too high, some too low`;
    return `scores are too ${bias > 0 ? "high" : "low"} by ${report.fixed(Math.abs(bias), 2)} on average`;
  }

  function binText(bin) {
    return `${(bin / numBins).toFixed(1)} to ${((bin + 1) / numBins).toFixed(1)}`;
  }

  function binRows() {
    return data.bin_counts[label].map((count, bin) => {
      const [score, precision] = [data.bin_scores[label][bin], data.bin_precision[label][bin]];
      return [binText(bin), count, score, precision, score === null ? null : score - precision];
    });
  }

  // All classes

  function row(label) {
    const [top, asked] = [best(label), forPrecision(label)];
    const own = (found, name) => (found === null ? null : found[name]);
    return [
      data.names[label], data.num_objects[label],
      own(top, "threshold"), own(top, "precision"), own(top, "recall"), own(top, "f1"),
      own(asked, "threshold"), own(asked, "precision"), own(asked, "recall"), data.error[label],
    ];
  }

  const number = (title, name) => ({ label: title, title: name, show: (value) => report.fixed(value) });
  const table = report.table(section.querySelector(".all"), {
    head: [
      "class", "objects", { label: "threshold", title: "with the best F1", show: short }, number("precision"), number("recall"),
      number("F1", "the best"), { label: "threshold (wanted)", title: "the lowest with the wanted precision", show: short },
      number("precision (wanted)"), number("recall (wanted)"), number("ECE", "expected calibration error"),
    ],
    rows: data.names.map((_, label) => row(label)), filter: "find a class", choose: (label) => choose(label, wanted),
  });
  const binTable = report.table(section.querySelector(".bins"), {
    head: ["score", "detections", number("mean score"), number("precision"), number("score - precision")],
    rows: binRows(), sortable: false,
  });

  // As YAML

  const yaml = section.querySelector(".yaml");
  const text = yaml.querySelector("textarea");
  const copied = section.querySelector(".copied");

  // A text in quotes as YAML reads it: what JSON leaves as it is, but YAML does not take, is escaped.
  function quoted(name) {
    const escape = (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`;
    return JSON.stringify(name).replace(/[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g, escape);
  }

  // The same text as that of thresholds_text in Python.
  function yamlText() {
    const own = data.names.map((_, label) => forPrecision(label));
    const common = numberText(forPrecision(all)?.threshold ?? data.no_threshold);
    const absent = own.filter((each) => each === null).length;
    const which = absent === 1 ? "1 class has none of its own" : `${absent} classes have none of their own`;
    const lines = [`# Score thresholds of ${data.label}: precision >= ${wanted} at IoU 0.5. Detections that score above count.`];
    if (absent) lines.push(`# ${which} and the common one, ${common}.`);
    lines.push(...data.names.map((name, label) => `${quoted(name)}: ${own[label] ? numberText(own[label].threshold) : common}`));
    return `${lines.join("\n")}\n`;
  }

  function showYaml() {
    yaml.querySelector("span").textContent = `thresholds with precision ≥ ${wanted.toFixed(2)}, for --score-threshold`;
    text.value = yamlText();
  }

  section.querySelector(".copy").addEventListener("click", async () => {
    yaml.hidden = false;
    showYaml();
    try {
      await navigator.clipboard.writeText(text.value);
      copied.textContent = "copied";
    } catch {
      text.select();
      copied.textContent = "selected: copy it with Ctrl+C";
    }
  });

  // Another class, or another precision. A table of hundreds of rows waits until the slider rests.
  let waiting = null;
  function choose(newLabel, newWanted) {
    const sameLabel = newLabel === label;
    if (newWanted !== wanted) {
      clearTimeout(waiting);
      waiting = setTimeout(() => table.show(data.names.map((_, each) => row(each))), 100);
    }
    [label, wanted] = [newLabel, newWanted];
    show();
    if (!sameLabel) showBins();
  }

  function show() {
    classes.querySelector("select").value = label === all ? "" : String(label);
    shownWanted.value = wanted.toFixed(2);
    copied.textContent = "";
    showChoices();
    fillCurves();
    curveChart.redraw();
    if (!yaml.hidden) showYaml();
  }

  function showBins() {
    fillBins();
    for (const chart of binCharts) chart.redraw();
    binTable.show(binRows());
    table.mark(label);
  }

  fillCurves();
  fillBins();
  const [curvePlace, binPlace, sharePlace] = section.querySelectorAll(".chart");
  const curveChart = report.plot(curvePlace, { x, y: { label: "", range: [0, 1] }, series });
  const fromZero = (_, least, most) => [0, most || 1];
  const binCharts = [
    report.plot(binPlace, { x: binX, y: { label: "precision", range: [0, 1] }, series: binSeries }),
    report.plot(sharePlace, { x: shareX, y: { label: "share", range: fromZero }, series: shareSeries }),
  ];
  show();
})();
