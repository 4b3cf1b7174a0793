"use strict";
// One picture, large: its objects and its detections, side by side, and a list of both.
const picturesViewer = (() => {
  const { KINDS, MISSED, NOTHING } = picturesData;
  const { frame, draw, hit, swatch } = picturesDraw;

  // The objects of an image as boxes: {table, row, sides, kind, text, note, wanted}.
  function objectBoxes(pictures, image, judged) {
    const { objects, detections } = pictures;
    const rank = (row) => [2, 1, 0, 3][objects.states[row]]; // what went wrong before what went well
    return rows(objects, image).sort((one, other) => rank(one) - rank(other)).map((row) => {
      const kind = picturesData.kindOfObject(pictures, image, row);
      const by = objects.foundBy[row];
      const score = by === NOTHING ? null : detections.scores[detections.starts[image] + by] / pictures.score_steps;
      const note = [
        score === null ? "found by a detection that is not shown" : `found, score ${score.toFixed(2)}`,
        `detected with an error${kind === MISSED ? " that is not shown" : `: ${KINDS[kind].name}`}`, "missed", "ignored: not counted",
      ][objects.states[row]];
      return {
        table: "objects", row, kind, sides: picturesData.box(objects, row), mask: objects.masks[row],
        text: pictures.class_names[objects.labels[row]],
        note: `${note} · ${["small", "medium", "large"][objects.sizes[row]]}`, wanted: judged.wants(judged.object(row)),
      };
    });
  }

  function detectionBoxes(pictures, image, judged) {
    const { detections } = pictures;
    return rows(detections, image).filter((row) => detections.scores[row] >= judged.least).map((row) => ({
      table: "detections", row, kind: detections.kinds[row],
      sides: picturesData.box(detections, row), mask: detections.masks[row],
      text: `${pictures.class_names[detections.labels[row]]} ${(detections.scores[row] / pictures.score_steps).toFixed(2)}`,
      note: explain(pictures, image, row), wanted: judged.wants(judged.detection(row)),
    }));
  }

  function rows(table, image) {
    return Array.from({ length: table.starts[image + 1] - table.starts[image] }, (_, place) => table.starts[image] + place);
  }

  function explain(pictures, image, row) {
    const { objects, detections } = pictures;
    const kind = detections.kinds[row], name = KINDS[kind].name;
    if (kind === 6) return "ignored: on an object that is not counted";
    if (detections.objects[row] === NOTHING) return name;
    const at = objects.starts[image] + detections.objects[row];
    const there = pictures.class_names[objects.labels[at]];
    const iou = (detections.ious[row] / 100).toFixed(2);
    const what = { 1: `${name}: the object is ${there}`, 3: `${name}: near ${there}` }[kind] ?? name;
    return `${what} · IoU ${iou}`;
  }

  // `open(images, place, filter)` shows the image at a place of a list; `moved` hears each that is shown, `closed` the last.
  function make(pictures, { moved, closed }) {
    const name = report.element("h3", { id: "viewer-name" });
    const position = report.element("span", { class: "position", role: "status" });
    const back = report.element("button", { type: "button", "aria-label": "Previous image", click: () => go(-1) }, "←");
    const next = report.element("button", { type: "button", "aria-label": "Next image", click: () => go(1) }, "→");
    const close = report.element("button", { type: "button", click: () => dialog.close() }, "Close");
    const body = report.element("div", { class: "viewer-body", tabindex: "-1" });
    const dialog = report.element("dialog", { class: "viewer", "aria-labelledby": "viewer-name", keydown: press },
      report.element("header", {}, name, report.element("div", { class: "controls" }, position, back, next, close)), body);
    let images = [], place = 0, judged = null, panels = [];
    document.getElementById("pictures").append(dialog);
    dialog.addEventListener("close", () => closed(images[place]));
    new ResizeObserver(() => paint()).observe(body);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint());

    function open(list, start, filter) {
      [images, place, judged] = [list, start, picturesData.judge(pictures, filter)];
      if (!dialog.open) dialog.showModal();
      show();
      body.focus({ preventScroll: true });
    }

    function go(step) {
      if (place + step < 0 || place + step >= images.length) return;
      place += step;
      show();
    }

    function press(event) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      go(step);
    }

    function show() {
      const image = images[place];
      name.textContent = pictures.files[image];
      position.textContent = `${place + 1} of ${images.length}`;
      back.disabled = place === 0;
      next.disabled = place === images.length - 1;
      // A disabled button hears no keys: the focus goes where the arrow keys are heard.
      if ([back, next].some((each) => each.disabled && each === document.activeElement)) body.focus({ preventScroll: true });
      const all = [...objectBoxes(pictures, image, judged), ...detectionBoxes(pictures, image, judged)];
      panels = ["objects", "detections"].map((table) => panel(image, table, all.filter((box) => box.table === table)));
      body.replaceChildren(...facts(image, all),
        report.element("div", { class: "panels" }, ...panels.map(({ figure }) => figure)),
        report.element("div", { class: "lists" }, ...panels.map(({ list }) => list)));
      body.scrollTop = 0;
      paint();
      moved(image);
    }

    // What is wrong with the picture's file, and the legend with counts.
    function facts(image, all) {
      const { starts } = pictures.detections, fault = pictures.faults[image];
      const hidden = starts[image + 1] - starts[image] - all.filter((box) => box.table === "detections").length;
      const told = all.filter((box) => box.table === "detections" || box.kind === MISSED);
      const legend = KINDS.map((kind, number) => [number, kind, told.filter((box) => box.kind === number).length])
        .filter(([, , count]) => count > 0);
      return [
        fault ? report.element("p", { class: "note" }, `The image cannot be shown: ${fault}`) : "",
        report.element("ul", { class: "legend" },
          ...legend.map(([number, kind, count]) => (
            report.element("li", { title: kind.what }, swatch(number), `${kind.name} ${count}`))),
          report.element("li", { class: "faint" }, `costs ${report.fixed(pictures.lost_ap[image], 4)} AP`),
          ...(hidden ? [report.element("li", { class: "faint" }, `${hidden} below the score threshold hidden`)] : [])),
      ];
    }

    function panel(image, table, boxes) {
      const title = table === "objects" ? `Ground truth: ${boxes.length}` : `Detections: ${boxes.length}`;
      const shown = frame(pictures, image, pictures.files[image]), shape = pictures.widths[image] / pictures.heights[image];
      shown.style.setProperty("--shape", shape);
      const figure = report.element("figure", {}, report.element("figcaption", {}, title), shown);
      const items = boxes.map((box, index) => report.element("li", {},
        report.element("button", {
          type: "button", class: box.wanted && judged.narrows ? "item meant" : "item",
          focus: () => light(table, index), blur: () => light(),
          mouseenter: () => light(table, index), mouseleave: () => light(),
        }, swatch(box.kind), report.element("span", {}, report.element("b", {}, box.text), " ",
          report.element("span", { class: "faint" }, box.note)))));
      const list = report.element("div", {}, report.element("h4", {}, title), report.element("ul", {}, ...items));
      shown.addEventListener("mousemove", (event) => {
        const { left, top } = shown.getBoundingClientRect();
        light(table, hit(shown, boxes, event.clientX - left, event.clientY - top));
      });
      shown.addEventListener("mouseleave", () => light());
      return { table, boxes, shown, figure, list, items };
    }

    // The box of a list's item, and what belongs to it in the other picture, before all others; none without an argument.
    function light(table = null, index = -1) {
      const box = panels.find((panel) => panel.table === table)?.boxes[index];
      paint(box);
      for (const panel of panels) {
        panel.items.forEach((item, number) => item.classList.toggle("lit", panel.boxes[number] === box));
      }
    }

    function belongs(one, other) {
      const { objects, detections } = pictures, image = images[place];
      const [object, detection] = one.table === "objects" ? [one, other] : [other, one];
      if (object.table === detection.table) return one === other;
      return objects.starts[image] + detections.objects[detection.row] === object.row;
    }

    function paint(lit) {
      if (!dialog.open) return;
      const some = panels.some(({ boxes }) => boxes.some((box) => box.wanted));
      const strength = (box) => {
        if (lit) return belongs(lit, box) ? "strong" : "faint";
        return box.wanted || !some ? "plain" : "faint";
      };
      for (const { shown, boxes } of panels) {
        draw(shown, boxes.map((box) => ({ ...box, strength: strength(box) })), { labels: true });
      }
    }

    return { open, close: () => dialog.close() };
  }

  return { make };
})();
