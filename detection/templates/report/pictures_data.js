"use strict";
// The images of the section "pictures": what its data say, and which of them a filter finds. Nothing here knows the page.
const picturesData = (() => {
  const { MISSED, isError } = report;
  const THERE = 8; // an object that was found, or touched, or does not count
  const NOTHING = 0xffff; // no such row, no such label
  const OUT = -1;

  // How the box of each kind is drawn: the dashes of its line, and how much wider that is.
  const DASHES = [[], [10, 4], [5, 3], [9, 3, 2, 3], [2, 3], [8, 3, 2, 3, 2, 3], [1, 4], []];
  const KINDS = report.kinds.map((kind, number) => ({ ...kind, dash: DASHES[number], width: number === MISSED ? 2 : 1 }));

  // A column of `packed.py`: base64 of little-endian numbers of 1 or 2 bytes.
  function column(text, bytes) {
    const raw = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    if (bytes === 1) return raw;
    const view = new DataView(raw.buffer);
    return Uint16Array.from({ length: raw.length / 2 }, (_, index) => view.getUint16(2 * index, true));
  }

  function sum(counts) {
    return counts.reduce((total, count) => total + count, 0);
  }

  // Counts of each image -> where the rows of each begin, and after the last one where they end.
  function starts(counts) {
    let sum = 0;
    return Int32Array.from([0, ...counts.map((count) => (sum += count))]);
  }

  // The outlines of `outlines.py`: of each row its polygons, of each of these its corners as shares of the image's sides.
  function outlines(text, rows) {
    const numbers = text === "" ? null : report.unpack(text), GRID = 1023;
    let at = 0;
    const next = () => numbers[at++];
    const step = () => { const number = next(); return number % 2 ? -(number + 1) / 2 : number / 2; };
    const polygon = () => {
      let [x, y] = [0, 0];
      return Array.from({ length: next() }, () => { x += step(); y += step(); return [x / GRID, y / GRID]; });
    };
    return Array.from({ length: rows }, () => (numbers ? Array.from({ length: next() }, polygon) : []));
  }

  function read(raw) {
    const { objects, detections } = raw;
    const collator = new Intl.Collator("en", { numeric: true });
    const byFile = raw.files.map((_, index) => index);
    byFile.sort((one, other) => collator.compare(raw.files[one], raw.files[other]));
    const fileRank = new Int32Array(byFile.length);
    byFile.forEach((index, rank) => { fileRank[index] = rank; });
    return {
      ...raw,
      fileRank,
      searched: raw.files.map((file) => file.toLowerCase()),
      indexOf: new Map(raw.numbers.map((number, index) => [number, index])),
      objects: {
        starts: starts(objects.counts), labels: column(objects.labels, 2), boxes: column(objects.boxes, 2),
        sizes: column(objects.sizes, 1), states: column(objects.states, 1), foundBy: column(objects.found_by, 2),
        scores: column(objects.scores, 2), masks: outlines(objects.masks, sum(objects.counts)),
      },
      detections: {
        starts: starts(detections.counts), labels: column(detections.labels, 2), scores: column(detections.scores, 2),
        boxes: column(detections.boxes, 2), sizes: column(detections.sizes, 1), kinds: column(detections.kinds, 1),
        objects: column(detections.objects, 2), ious: column(detections.ious, 1),
        trueLabels: column(detections.true_labels, 2), masks: outlines(detections.masks, sum(detections.counts)),
      },
    };
  }

  // The box of a row, as shares of the image's sides.
  function box(table, row) {
    return [0, 1, 2, 3].map((side) => table.boxes[4 * row + side] / 0xffff);
  }

  // What rows are by a filter: a kind, or OUT where the filter, whatever its kinds, does not mean them.
  function judge(pictures, filter) {
    const { objects, detections } = pictures;
    const { kinds, label, size, trueLabel, detectedLabel } = filter;
    const background = pictures.class_names.length;
    const least = Math.round(filter.minScore * pictures.score_steps);
    const cell = trueLabel !== null || detectedLabel !== null;
    const is = (wanted, value) => wanted === null || wanted === value;
    const fits = (table, row) => is(label, table.labels[row]) && is(size, table.sizes[row]);

    function detection(row) {
      if (detections.scores[row] < least || !fits(detections, row)) return OUT;
      if (!is(trueLabel, detections.trueLabels[row]) || !is(detectedLabel, detections.labels[row])) return OUT;
      return detections.kinds[row];
    }

    // In a cell of the confusion matrix an object is missed if no detection of any class that scores enough took it.
    function object(row) {
      if (!fits(objects, row)) return OUT;
      if (!cell) return objects.states[row] === 2 ? MISSED : THERE;
      if (!is(trueLabel, objects.labels[row]) || !is(detectedLabel, background)) return OUT;
      const taken = objects.scores[row] !== NOTHING && objects.scores[row] >= least;
      return objects.states[row] === 3 || taken ? OUT : MISSED;
    }

    return {
      least, detection, object,
      wants: (kind) => kind !== OUT && (kinds.size === 0 || kinds.has(kind)),
      narrows: cell || label !== null || size !== null || kinds.size > 0,
    };
  }

  // The images that a filter finds, in its order, and how many rows of each kind it means. Without a class, a size, a kind or
  // a cell it means all images; with one, those in which a detection or an object fits.
  function search(pictures, filter) {
    const judged = judge(pictures, filter);
    const counts = new Array(KINDS.length + 1).fill(0);
    const text = filter.text.trim().toLowerCase();
    const found = [];
    for (let image = 0; image < pictures.numbers.length; image++) {
      if (filter.images !== null && !filter.images.has(pictures.numbers[image])) continue;
      if (text !== "" && !pictures.searched[image].includes(text)) continue;
      const seen = look(pictures, image, judged, counts);
      if (seen.any || !judged.narrows) found.push({ image, ...seen });
    }
    return { found: ordered(pictures, found, filter.order), counts };
  }

  // What a filter means in an image: whether anything, how many errors, and the highest score among them.
  function look(pictures, image, judged, counts) {
    const { objects, detections } = pictures;
    let any = false, errors = 0, score = -1;
    for (let row = detections.starts[image]; row < detections.starts[image + 1]; row++) {
      const kind = judged.detection(row);
      if (kind === OUT) continue;
      counts[kind]++;
      if (!judged.wants(kind)) continue;
      any = true;
      if (isError(kind)) { errors++; score = Math.max(score, detections.scores[row]); }
    }
    for (let row = objects.starts[image]; row < objects.starts[image + 1]; row++) {
      const kind = judged.object(row);
      if (kind === OUT) continue;
      counts[kind]++;
      if (!judged.wants(kind)) continue;
      any = true;
      if (kind === MISSED) errors++;
    }
    return { any, errors, score };
  }

  // Images come by descending lost AP, and stay so where they are equal.
  function ordered(pictures, found, order) {
    if (order === "errors") found.sort((one, other) => other.errors - one.errors);
    if (order === "score") found.sort((one, other) => other.score - one.score);
    if (order === "file") found.sort((one, other) => pictures.fileRank[one.image] - pictures.fileRank[other.image]);
    return found.map(({ image }) => image);
  }

  // The kind by which an object is drawn: that of the error that touches it, if only one does.
  function kindOfObject(pictures, image, row) {
    const { objects, detections } = pictures;
    const state = objects.states[row];
    if (state !== 1) return { 0: 0, 2: MISSED, 3: 6 }[state];
    const place = row - objects.starts[image];
    for (let found = detections.starts[image]; found < detections.starts[image + 1]; found++) {
      if (detections.objects[found] === place && [1, 2].includes(detections.kinds[found])) return detections.kinds[found];
    }
    return MISSED;
  }

  return { MISSED, NOTHING, KINDS, isError, read, box, judge, look, search, kindOfObject };
})();
