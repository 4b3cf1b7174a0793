"use strict";
// The section "pictures": filters, a page of small pictures, and a large one on demand.
(() => {
  const { KINDS, MISSED } = picturesData;
  const PAGE = 48; // pictures in the page at a time
  const USUAL_SCORE = 0.3; // below it a detector says little, and says it everywhere
  const ORDERS = [
    ["lost", "lost AP"], ["errors", "number of errors"], ["score", "highest score of an error"], ["file", "file name"],
  ];
  const SIZES = ["small", "medium", "large"];

  const pictures = picturesData.read(report.data("pictures"));
  const background = pictures.class_names.length;
  const part = (name) => document.getElementById(`pictures-${name}`);
  const usual = () => ({
    kinds: new Set(), label: null, size: null, minScore: USUAL_SCORE, text: "", order: "lost",
    images: null, trueLabel: null, detectedLabel: null,
  });
  let filter = usual(), found = [], page = 0;

  // --- the filters ---------------------------------------------------------------------------------------------------
  const chips = KINDS.map((kind, number) => {
    const box = report.element("input", { type: "checkbox", value: number, change: () => {
      if (box.checked) filter.kinds.add(number); else filter.kinds.delete(number);
      apply();
    } });
    const count = report.element("span", { class: "number" });
    part("kinds").append(report.element("label", { title: kind.what }, box, picturesDraw.swatch(number), kind.name, count));
    return { box, count };
  });
  const classes = report.classChoice(pictures.class_names, (label) => change({ label }));
  const sizes = report.choice("object size", [["", "any"], ...SIZES.map((size, number) => [String(number), size])],
    (value) => change({ size: value === "" ? null : Number(value) }));
  const orders = report.choice("sort by", ORDERS, (order) => change({ order }));
  const score = report.element("input", {
    type: "range", min: pictures.least_score, max: 1, step: 0.01, input: () => change({ minScore: Number(score.value) }),
  });
  const shownScore = report.element("output");
  const text = report.element("input", { type: "search", input: () => change({ text: text.value }) });
  part("controls").append(classes, sizes, report.element("label", {}, "score threshold", score, shownScore), orders,
    report.element("label", {}, "file name", text));
  part("clear").addEventListener("click", () => { filter = usual(); apply(); part("count").focus(); });

  function change(values) {
    Object.assign(filter, values);
    apply();
  }

  // Show in the controls what the filter is, wherever it came from.
  function reflect(counts) {
    chips.forEach(({ box, count }, kind) => {
      box.checked = filter.kinds.has(kind);
      count.textContent = counts[kind].toLocaleString("en");
    });
    classes.querySelector("select").value = filter.label ?? "";
    sizes.querySelector("select").value = filter.size ?? "";
    orders.querySelector("select").value = filter.order;
    score.value = filter.minScore;
    shownScore.textContent = filter.minScore.toFixed(2);
    if (text.value !== filter.text) text.value = filter.text;
    const others = usual();
    part("clear").hidden = filter.kinds.size === 0
      && Object.keys(others).every((key) => key === "kinds" || filter[key] === others[key]);
    part("active").replaceChildren(...activeChips());
  }

  // What other sections asked for and no control shows, each with a button that takes it back.
  function activeChips() {
    const { trueLabel, detectedLabel, images } = filter;
    const chip = (words, values) => report.element("button", {
      type: "button", click: () => { change(values); part("count").focus(); },
    }, `${words} ✕`, report.element("span", { class: "unseen" }, " clear"));
    const made = [];
    if (trueLabel !== null || detectedLabel !== null) made.push(chip(cellWords(), { trueLabel: null, detectedLabel: null }));
    if (images !== null) made.push(chip(`${images.size.toLocaleString("en")} chosen images`, { images: null }));
    return made;
  }

  function cellWords() {
    const { trueLabel, detectedLabel } = filter, name = (label) => pictures.class_names[label];
    if (detectedLabel === background) return `${trueLabel === null ? "objects" : name(trueLabel)} without a matching detection`;
    const real = trueLabel === null ? "anything" : trueLabel === background ? "background" : name(trueLabel);
    return `${real} detected as ${detectedLabel === null ? "anything" : name(detectedLabel)}`;
  }

  // --- the small pictures --------------------------------------------------------------------------------------------
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) inView.add(target); else inView.delete(target);
      if (isIntersecting) paint(target);
    }
  }, { rootMargin: "300px" });
  const inView = new Set();
  const repaint = () => inView.forEach(paint);
  new ResizeObserver(repaint).observe(part("grid"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  matchMedia("print").addEventListener("change", () => [...part("grid").children].forEach(paint));

  function apply() {
    const { found: images, counts } = picturesData.search(pictures, filter);
    [found, page] = [images, 0];
    reflect(counts);
    const outside = filter.images === null ? 0 : [...filter.images].filter((number) => !pictures.indexOf.has(number)).length;
    part("count").textContent = `${count(found.length)} of ${count(pictures.numbers.length)} images`
      + (outside ? `; ${count(outside)} of those chosen are not among the ${count(pictures.numbers.length)}` : "");
    showPage();
  }

  const count = (number) => number.toLocaleString("en");

  function showPage() {
    const first = page * PAGE, cards = found.slice(first, first + PAGE).map(card);
    near.disconnect();
    inView.clear();
    part("grid").replaceChildren(...cards);
    cards.forEach((each) => near.observe(each));
    part("pages").hidden = found.length <= PAGE;
    const range = `${count(first + 1)}–${count(first + cards.length)}`;
    part("pages").querySelector("span").textContent = `${range} of ${count(found.length)}`;
    part("back").disabled = page === 0;
    part("next").disabled = first + PAGE >= found.length;
  }

  function turn(step) {
    page += step;
    showPage();
    part("filters").scrollIntoView({ block: "start" });
    part("grid").firstElementChild.focus({ preventScroll: true });
  }
  part("back").addEventListener("click", () => turn(-1));
  part("next").addEventListener("click", () => turn(1));

  function card(image) {
    const judged = picturesData.judge(pictures, filter);
    return report.element("button", {
      type: "button", class: "picture", title: pictures.files[image], "data-number": pictures.numbers[image],
      click: () => viewer.open(found, found.indexOf(image), filter),
    }, picturesDraw.frame(pictures, image), report.element("span", { class: "name" }, pictures.files[image]),
    report.element("span", { class: "faint" }, words(image, judged)));
  }

  // What is meant in a picture, in words: its errors, and all that fits where the filter narrows the pictures.
  function words(image, judged) {
    const counts = new Array(KINDS.length + 1).fill(0);
    const { score } = picturesData.look(pictures, image, judged, counts);
    const told = (kind) => counts[kind] && judged.wants(kind) && (judged.narrows || picturesData.isError(kind));
    const parts = KINDS.flatMap((kind, number) => (told(number) ? [`${counts[number]} ${kind.name}`] : []));
    if (filter.order === "score" && score >= 0) parts.push(`highest score ${(score / pictures.score_steps).toFixed(2)}`);
    if (pictures.faults[image]) parts.unshift("no image file");
    return parts.join(" · ") || "no errors";
  }

  // What is drawn over a small picture: the detections and the missed objects that are meant.
  function boxesOf(image, judged) {
    const { objects, detections } = pictures, boxes = [];
    const add = (table, row, kind) => {
      const shape = { sides: picturesData.box(table, row), mask: table.masks[row] };
      if (judged.wants(kind)) boxes.push({ ...shape, kind, strength: "plain" });
    };
    for (let row = objects.starts[image]; row < objects.starts[image + 1]; row++) {
      if (judged.object(row) === MISSED) add(objects, row, MISSED);
    }
    for (let row = detections.starts[image]; row < detections.starts[image + 1]; row++) {
      add(detections, row, judged.detection(row));
    }
    return boxes;
  }

  function paint(target) {
    const image = pictures.indexOf.get(Number(target.dataset.number));
    picturesDraw.draw(target.querySelector(".frame"), boxesOf(image, picturesData.judge(pictures, filter)));
  }

  // --- the large picture ---------------------------------------------------------------------------------------------
  const viewer = picturesViewer.make(pictures, {
    moved: (image) => address(`#picture=${pictures.numbers[image]}`),
    closed: (image) => {
      if (addressed() !== null) address("#pictures"); // else the reader has gone elsewhere, by "back" for one
      const place = found.indexOf(image);
      if (Math.floor(place / PAGE) !== page) { page = Math.floor(place / PAGE); showPage(); }
      part("grid").children[place % PAGE]?.focus();
    },
  });

  // A browser that refuses, as some do for files, only has no address for the picture.
  function address(hash) {
    try { history.replaceState(null, "", hash); } catch { /* as said above */ }
  }

  // The number of the image that the address names, or null.
  function addressed() {
    const found = /^#picture=(\d+)$/.exec(location.hash);
    return found && Number(found[1]);
  }

  function openAddressed() {
    const number = addressed();
    if (number === null) viewer.close();
    const image = pictures.indexOf.get(number);
    if (image === undefined) return;
    if (!found.includes(image)) { filter = usual(); apply(); }
    viewer.open(found, found.indexOf(image), filter);
  }

  report.on("show-pictures", (asked) => {
    const { kind = null, label = null, size = null, minScore = pictures.least_score, images = null } = asked;
    const { trueLabel = null, detectedLabel = null } = asked;
    const kinds = kind === null ? [] : [kind];
    filter = {
      ...usual(), label, minScore, trueLabel, detectedLabel, kinds: new Set(kinds), images: images && new Set(images),
      size: size === null ? null : SIZES.indexOf(size), order: kinds.length && kinds[0] !== MISSED ? "score" : "lost",
    };
    apply();
    document.getElementById("pictures").scrollIntoView({ block: "start" });
    part("count").focus({ preventScroll: true });
  });

  function about() {
    if (!pictures.num_images) return "There are no images.";
    const which = pictures.numbers.length < pictures.num_images
      ? `The ${count(pictures.numbers.length)} of ${count(pictures.num_images)} images that cost the most AP`
      : "All images, those that cost the most AP first";
    return `${which}. Each has its best ${pictures.max_detections} detections at most, with scores of at least ${pictures.least_score}.`;
  }

  part("about").textContent = about();
  apply();
  openAddressed();
  window.addEventListener("hashchange", openAddressed);
})();
