"use strict";
(() => {
  const { losses, metrics } = report.data("summary");
  const HEIGHT = 220;

  // Curves with steps of their own against one axis of all steps. Where a curve has no step it goes on; null is a gap.
  function plotCurves(place, curves, label) {
    const joined = uPlot.join(curves.map(({ steps, values }) => [steps, values]));
    const series = curves.map((curve, number) => ({
      label: curve.label, values: joined[number + 1], points: curve.steps.length < 50, width: curve.width,
    }));
    report.plot(place, { x: { label: "step", values: joined[0] }, y: { label }, series, height: HEIGHT });
  }

  // The loss that is chosen, the sum at first: of training and of validation in one plot, where they show overfitting.
  function showLosses(chart) {
    const place = report.element("div");
    const show = (number) => {
      place.replaceChildren();
      const { name, curves } = losses[number];
      plotCurves(place, curves.map((curve) => ({ ...curve, width: curve.label === "validation" ? 2.5 : 1 })), name);
    };
    if (losses.length > 1) {
      const options = losses.map(({ name }, number) => [String(number), number === 0 ? "sum of all" : name]);
      chart.querySelector(".controls").append(report.choice("loss", options, (value) => show(Number(value))));
    }
    chart.append(place);
    show(0);
  }

  if (losses.length) showLosses(document.getElementById("loss-curves"));
  if (metrics.length) plotCurves(document.getElementById("metric-curves"), metrics, "AP");
})();
