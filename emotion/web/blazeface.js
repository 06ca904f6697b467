// BlazeFace, as emotion.inference.blazeface runs it in Python, with the same steps and settings.

import { border, enlarge, round, shrink, warp } from "./pixels.js";

/** Face detector with the `settings` of model.json and an ONNX Runtime `session` of detector.onnx. */
export class BlazeFace {
  constructor(session, Tensor, settings) {
    Object.assign(this, { session, Tensor, settings });
  }

  /** Return the faces {left, top, side, score, angle} of RGB pixels, the largest first. */
  async detect(image) {
    const candidates = [];
    for (const { pixels, factor } of this.#pyramid(image)) candidates.push(...(await this.#candidates(pixels, factor)));
    const examined = [];
    for (const row of this.#merge(candidates)) examined.push(await this.#examine(image, row));
    const faces = examined.filter((row) => this.#probability(row.score) >= this.settings.threshold);
    return this.#merge(faces).map((row) => this.#box(row)).sort((one, other) => other.side - one.side);
  }

  // Return the image at each scale, the largest first, and its factor; a larger one is shrunk to the next.
  #pyramid(image) {
    const { scales, fine_scale: fineScale, large } = this.settings;
    const longer = Math.max(image.width, image.height);
    let larger = image;
    return (longer >= large ? [fineScale, ...scales] : scales).map((side) => {
      const factor = side / longer;
      const size = [image.width, image.height].map((length) => Math.max(1, round(length * factor)));
      if (factor >= 1) return { pixels: enlarge(image, ...size), factor };
      larger = shrink(larger, ...size);
      return { pixels: larger, factor };
    });
  }

  // Return candidates {score, points} in a resized image, in pixels of the image, which is 1 / factor times as large.
  // Points are the box's center, its size, both eyes, the nose, the mouth and both ears.
  async #candidates(pixels, factor) {
    const multiple = (length) => Math.ceil(length / this.settings.stride) * this.settings.stride;
    const { scores, faces } = await this.#run(border(pixels, multiple(pixels.width), multiple(pixels.height)));
    const rows = [];
    scores.forEach((score, i) => {
      if (score < this.settings.candidate) return;
      rows.push({ score, points: pointsOf(faces, i).map((point) => point.map((value) => value / factor)) });
    });
    return rows;
  }

  // Run the network on the surroundings of a candidate, with its eyes level; score 0 if they hold no face.
  async #examine(image, { points: [center, size, right, left] }) {
    const { patch, patch_side: side } = this.settings;
    const angle = rounded(Math.atan2(left[1] - right[1], left[0] - right[0]));
    const scale = rounded((patch * (size[0] + size[1])) / 2 / side);
    const [cos, sin] = [scale * Math.cos(angle), scale * Math.sin(angle)];
    const turn = ([x, y]) => [cos * x - sin * y, sin * x + cos * y];
    const middle = turn([side / 2, side / 2]);
    const offset = center.map((value, i) => rounded(value) - middle[i]);
    const matrix = [cos, -sin, offset[0], sin, cos, offset[1]];
    const { scores, faces } = await this.#run(warp(image, matrix, side));
    const best = scores.indexOf(Math.max(...scores));
    const points = pointsOf(faces, best);
    const centered = points[0].every((value) => Math.abs(value - side / 2) < side / 4);
    const [found, ...keypoints] = [points[0], ...points.slice(2)].map((point) => turn(point).map((value, i) => value + offset[i]));
    const length = (scale * (points[1][0] + points[1][1])) / 2;
    return { score: centered ? scores[best] : 0, points: [found, [length, length], ...keypoints] };
  }

  // Merge the rows of one face: the highest score, and the mean geometry weighted by score.
  #merge(rows) {
    let left = [...rows].sort((one, other) => other.score - one.score);
    const merged = [];
    while (left.length) {
      const overlaps = left.map((row) => overlap(left[0], row));
      const averaged = left.filter((_, i) => overlaps[i].union > this.settings.overlap);
      const total = averaged.reduce((sum, row) => sum + row.score, 0);
      const mean = (k, i) => averaged.reduce((sum, row) => sum + row.score * row.points[k][i], 0) / total;
      merged.push({ score: left[0].score, points: left[0].points.map((_, k) => [mean(k, 0), mean(k, 1)]) });
      left = left.filter((_, i) => overlaps[i].union <= this.settings.overlap && overlaps[i].smaller <= this.settings.nested);
    }
    return merged;
  }

  // The square that FER2013 would crop, upright if the face is turned far.
  #box({ score, points: [center, size, right, left] }) {
    const degrees = round((Math.atan2(left[1] - right[1], left[0] - right[0]) * 1800) / Math.PI) / 10;
    const angle = Math.abs(degrees) >= this.settings.level_from ? degrees : 0;
    const side = ((size[0] + size[1]) / 2) * this.settings.side;
    const down = this.settings.down * side;
    const x = center[0] + Math.sin((angle * Math.PI) / 180) * down;
    const y = center[1] - Math.cos((angle * Math.PI) / 180) * down;
    return { left: x - side / 2, top: y - side / 2, side, score: this.#probability(score), angle };
  }

  #probability(score) {
    const clipped = Math.min(Math.max(score, 1e-6), 1 - 1e-6);
    return 1 / (1 + Math.exp(-this.settings.slope * Math.log(clipped / (1 - clipped)) - this.settings.offset));
  }

  async #run({ width, height, data }) {
    const values = new Float32Array(3 * width * height);
    for (let i = 0, plane = width * height; i < plane; i++) {
      for (let c = 0; c < 3; c++) values[c * plane + i] = data[3 * i + c] / 127.5 - 1;
    }
    const { scores, faces } = await this.session.run({ image: new this.Tensor("float32", values, [1, 3, height, width]) });
    return { scores: scores.data, faces: faces.data };
  }
}

// Round to thousandths, so that all implementations cut out the same pixels.
const rounded = (value) => round(1000 * value) / 1000;

function pointsOf(faces, row) {
  return Array.from({ length: 8 }, (_, k) => [faces[16 * row + 2 * k], faces[16 * row + 2 * k + 1]]);
}

// Intersection over union, and over the smaller area, of two boxes.
function overlap({ points: [center, size] }, { points: [otherCenter, otherSize] }) {
  const shared = [0, 1].map((i) => {
    const low = Math.max(center[i] - size[i] / 2, otherCenter[i] - otherSize[i] / 2);
    return Math.max(0, Math.min(center[i] + size[i] / 2, otherCenter[i] + otherSize[i] / 2) - low);
  });
  const [common, area, otherArea] = [shared, size, otherSize].map(([width, height]) => width * height);
  return { union: common / (area + otherArea - common), smaller: common / Math.min(area, otherArea) };
}
