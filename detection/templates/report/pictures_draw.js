"use strict";
// Pictures with boxes over them: `frame` makes one, `draw` its boxes, whose kinds are told by colour and by line.
const picturesDraw = (() => {
  const { KINDS } = picturesData;
  const FONT = "12px system-ui, sans-serif";
  const LABEL = { height: 17, padding: 5, stripe: 3, longest: 28 };

  // A picture, or an empty field of its shape where it cannot be shown, under a canvas for boxes. Without `alt` its name
  // has to stand beside it.
  function frame(pictures, image, alt = "") {
    const fault = pictures.faults[image];
    const canvas = report.element("canvas", { "aria-hidden": "true" });
    const number = String(pictures.numbers[image]).padStart(6, "0");
    const shape = { "data-shape": pictures.widths[image] / pictures.heights[image] };
    return fault
      ? report.element("span", { class: "frame", ...shape }, canvas)
      : report.element("span", { class: "frame", ...shape },
        report.element("img", { src: `pictures/${number}.webp`, alt, loading: "lazy", decoding: "async" }), canvas);
  }

  // Where the picture lies in its frame: as large as fits, in the middle. CSS has `object-fit: contain` for the same.
  function field(place) {
    const { clientWidth: width, clientHeight: height } = place;
    const shape = Number(place.dataset.shape);
    const shown = { width: Math.min(width, height * shape), height: Math.min(height, width / shape) };
    return { x: (width - shown.width) / 2, y: (height - shown.height) / 2, ...shown };
  }

  function colors() {
    const names = ["--back", "--text", "--line", ...KINDS.map((kind) => kind.color)];
    return Object.fromEntries(names.map((name) => [name, report.themed(name)]));
  }

  // Draw boxes and masks: {sides, mask, kind, text, strength: "faint", "plain" or "strong"}; with `labels` the texts, the first
  // boxes' first.
  function draw(place, boxes, { labels = false } = {}) {
    const canvas = place.querySelector("canvas"), scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(place.clientWidth * scale);
    canvas.height = Math.round(place.clientHeight * scale);
    const pen = canvas.getContext("2d"), theme = colors(), inside = field(place);
    pen.scale(scale, scale);
    if (!place.querySelector("img")) drawEmpty(pen, inside, theme);
    const placed = boxes.map((each) => ({ ...each, ...pixels(each.sides, inside) }));
    for (const each of [...placed].reverse()) drawMask(pen, each, inside, theme);
    for (const strength of ["faint", "plain", "strong"]) {
      const drawn = placed.filter((box) => box.strength === strength).reverse();
      for (const each of drawn) drawBox(pen, each, theme, labels ? 2 : 1.5);
    }
    if (labels) drawLabels(pen, placed, { width: place.clientWidth, height: place.clientHeight }, theme);
  }

  function drawEmpty(pen, inside, theme) {
    pen.fillStyle = theme["--back"];
    pen.strokeStyle = theme["--line"];
    pen.fillRect(inside.x, inside.y, inside.width, inside.height);
    pen.strokeRect(inside.x + 0.5, inside.y + 0.5, inside.width - 1, inside.height - 1);
  }

  function pixels([x1, y1, x2, y2], inside) {
    const x = inside.x + x1 * inside.width, y = inside.y + y1 * inside.height;
    return { x, y, width: (x2 - x1) * inside.width, height: (y2 - y1) * inside.height };
  }

  // The polygons of a mask, translucent with a line around; none where masks are not known.
  function drawMask(pen, { mask, kind, strength }, inside, theme) {
    pen.beginPath();
    for (const polygon of mask) {
      polygon.forEach(([x, y], corner) => {
        pen[corner ? "lineTo" : "moveTo"](inside.x + x * inside.width, inside.y + y * inside.height);
      });
      pen.closePath();
    }
    pen.fillStyle = pen.strokeStyle = theme[KINDS[kind].color];
    pen.globalAlpha = { faint: 0.08, plain: 0.3, strong: 0.5 }[strength];
    pen.fill("evenodd");
    pen.lineWidth = 1;
    pen.stroke();
    pen.globalAlpha = 1;
  }

  // A seam in the page's colour under each line keeps it apart from any photograph.
  function drawBox(pen, box, theme, line) {
    const kind = KINDS[box.kind], width = line * kind.width * (box.strength === "strong" ? 1.5 : 1);
    pen.globalAlpha = box.strength === "faint" ? 0.3 : 1;
    if (box.strength === "strong") {
      pen.fillStyle = theme[kind.color];
      pen.globalAlpha = 0.15;
      pen.fillRect(box.x, box.y, box.width, box.height);
      pen.globalAlpha = 1;
    }
    for (const [color, wide, dash] of [[theme["--back"], width + 2, []], [theme[kind.color], width, kind.dash]]) {
      pen.strokeStyle = color;
      pen.lineWidth = wide;
      pen.setLineDash(dash.map((length) => (length * line) / 1.5));
      pen.strokeRect(box.x, box.y, box.width, box.height);
    }
    pen.setLineDash([]);
    pen.globalAlpha = 1;
  }

  // A label stands where it covers no other, or not at all: the list beside the picture has every text.
  function drawLabels(pen, boxes, room, theme) {
    const taken = [];
    pen.font = FONT;
    pen.textBaseline = "middle";
    const order = [...boxes.filter((box) => box.strength === "strong"), ...boxes.filter((box) => box.strength === "plain")];
    for (const box of order) {
      const text = box.text.length > LABEL.longest ? `${box.text.slice(0, LABEL.longest - 1)}…` : box.text;
      const width = Math.ceil(pen.measureText(text).width) + 2 * LABEL.padding + LABEL.stripe;
      const spot = spots(box, width, room).find((each) => !taken.some((other) => overlap(each, other)));
      if (!spot) continue;
      taken.push(spot);
      drawLabel(pen, spot, text, theme[KINDS[box.kind].color], theme);
    }
  }

  function spots(box, width, room) {
    const { height } = LABEL, left = box.x, right = box.x + box.width - width, bottom = box.y + box.height;
    return [
      [left, box.y - height], [left, box.y], [right, box.y - height], [left, bottom], [left, bottom - height], [right, bottom],
    ].map(([x, y]) => ({
      x: Math.max(0, Math.min(x, room.width - width)), y: Math.max(0, Math.min(y, room.height - height)), width, height,
    }));
  }

  function overlap(one, other) {
    return one.x < other.x + other.width && other.x < one.x + one.width
      && one.y < other.y + other.height && other.y < one.y + one.height;
  }

  function drawLabel(pen, { x, y, width, height }, text, color, theme) {
    pen.fillStyle = theme["--back"];
    pen.globalAlpha = 0.88;
    pen.fillRect(x, y, width, height);
    pen.globalAlpha = 1;
    pen.fillStyle = color;
    pen.fillRect(x, y, LABEL.stripe, height);
    pen.fillStyle = theme["--text"];
    pen.fillText(text, x + LABEL.stripe + LABEL.padding, y + height / 2 + 0.5);
  }

  // The smallest box under a point of the frame, by its place among the boxes; -1 for none.
  function hit(place, boxes, x, y) {
    const inside = field(place);
    const under = boxes.map((box, index) => ({ index, ...pixels(box.sides, inside) }))
      .filter((box) => x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height);
    under.sort((one, other) => one.width * one.height - other.width * other.height);
    return under.length ? under[0].index : -1;
  }

  // A piece of a kind's line, for legends and lists.
  function swatch(kind) {
    const make = (tag, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      return made;
    };
    const { dash, color, width } = KINDS[kind];
    const picture = make("svg", { width: 34, height: 12, viewBox: "0 0 34 12", class: "swatch", "aria-hidden": "true" });
    const line = make("line", { x1: 1, x2: 33, y1: 6, y2: 6, "stroke-width": 2.5 * width, "stroke-dasharray": dash.join(" ") });
    line.style.stroke = `var(${color})`;
    picture.append(line);
    return picture;
  }

  return { frame, draw, hit, swatch };
})();
