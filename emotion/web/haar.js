// OpenCV's CascadeClassifier in plain JavaScript, with the cascade that the Python package uses.
//
// Candidates, grouping and rounding follow OpenCV 4 (objdetect/src/cascadedetect.cpp). OpenCV's own WebAssembly builds
// weigh 10 MB and need a policy that allows eval.

import { resizeExact, round, shrink, toGrey } from "./pixels.js";

const GROUP_EPS = 0.2; // by how many sides squares of one face may differ

/** Face detector like `emotion.inference.detectors.Haar`, with its `settings` and the trees of its `cascade`. */
export class Haar {
  constructor(cascade, settings) {
    this.settings = settings;
    this.window = cascade.side;
    this.rectangles = cascade.nodes.map((node) => cascade.features[node[2]]); // [left, top, width, height, weight]
    this.nodes = Int32Array.from(
      cascade.nodes.flatMap(([left, right], i) => {
        const weights = this.rectangles[i].map((rectangle) => rectangle[4]);
        return [weights[0], weights[1], weights[2] ?? 0, left, right];
      }),
    );
    this.thresholds = Float32Array.from(cascade.nodes, (node) => node[3]);
    this.leaves = Float32Array.from(cascade.leaves);
    this.trees = Int32Array.from(cascade.stages.flatMap(([trees]) => trees)); // nodes per tree
    this.stages = Int32Array.from(cascade.stages, ([trees]) => trees.length);
    this.stageThresholds = Float32Array.from(cascade.stages, ([, threshold]) => Math.fround(threshold) - Math.fround(1e-5)); // OpenCV's tolerance
    this.stride = 0;
  }

  /** Return the faces {left, top, side} of RGBA pixels, the largest first. */
  detect(pixels) {
    const { max_side: maxSide, min_face: minFace, side_ratio: sideRatio, offset } = this.settings;
    let image = toGrey(pixels);
    const factor = Math.min(1, maxSide / Math.max(image.width, image.height));
    if (factor < 1) {
      const [width, height] = [image.width, image.height].map((side) => Math.max(1, round(factor * side)));
      image = shrink(image, width, height);
    }
    const minSide = Math.max(this.window, round(minFace * Math.max(image.width, image.height)));
    const boxes = groupSquares(this.#candidates(image, minSide), this.settings.min_neighbors).map(({ x, y, side: width }) => {
      const side = width / sideRatio;
      const edge = (side - width) / 2;
      return { left: (x - edge) / factor, top: (y - edge + offset * side) / factor, side: side / factor };
    });
    return boxes.sort((one, other) => other.side - one.side);
  }

  /** Return all squares {x, y, side} of at least `minSide` that pass all stages. */
  #candidates(image, minSide) {
    const { width, height } = image;
    const scales = [];
    for (let factor = 1; round(this.window * factor) <= Math.min(width, height); factor *= this.settings.step) {
      if (round(this.window * Math.fround(factor)) >= minSide) scales.push(Math.fround(factor));
    }
    if (!scales.length) return [];
    const size = (scale) => [width, height].map((side) => round(Math.fround(side / scale)));
    this.#allocate(...size(scales[0]));
    const squares = [];
    for (const scale of scales) {
      const [across, down] = size(scale);
      resizeExact(image, across, down, this.level);
      this.#integrate(across, down);
      const step = scale >= 2 ? 1 : 2;
      const side = round(Math.fround(this.window * scale));
      for (let y = 0; y < down + 1 - this.window; y += step) {
        for (let x = 0; x < across + 1 - this.window; x += step) {
          const stage = this.#passes(x, y, across, down);
          if (stage === this.stages.length) {
            squares.push({ x: round(Math.fround(x * scale)), y: round(Math.fround(y * scale)), side });
          }
          if (stage === 0) x += step; // nothing like a face: skip the next position
        }
      }
    }
    return squares;
  }

  /** Allocate the largest level and its integral images, and locate the features' corners in them. */
  #allocate(width, height) {
    if (this.stride === width + 1 && this.level.length === width * height) return;
    const stride = (this.stride = width + 1);
    this.level = new Uint8Array(width * height);
    this.sums = new Int32Array(stride * (height + 1));
    this.squares = new Int32Array(stride * (height + 1));
    this.corners = new Int32Array(this.rectangles.length * 12);
    this.rectangles.forEach((own, i) =>
      own.forEach(([left, top, across, down], k) => {
        const first = top * stride + left;
        const last = first + down * stride;
        this.corners.set([first, first + across, last, last + across], 12 * i + 4 * k);
      }),
    );
  }

  #integrate(width, height) {
    const { level, sums, squares, stride } = this;
    sums.fill(0, 0, width + 1);
    squares.fill(0, 0, width + 1);
    for (let y = 1, from = 0; y <= height; y++) {
      let [to, sum, square] = [y * stride, 0, 0];
      sums[to] = squares[to] = 0;
      for (let x = 0; x < width; x++) {
        const value = level[from++];
        sum += value;
        square += value * value;
        to++;
        sums[to] = sums[to - stride] + sum;
        squares[to] = squares[to - stride] + square; // may overflow: differences of 32 bits stay correct
      }
    }
  }

  /** Return how many stages the window at x, y passes; -1 if it is too uniform or crosses the edge. */
  #passes(x, y, width, height) {
    const { sums, squares, stride, window, corners, nodes, thresholds, leaves, trees, stages } = this;
    if (x + window > width || y + window > height) return -1;
    const place = y * stride + x;
    const first = place + stride + 1;
    const last = place + (window - 1) * stride + 1;
    const inner = window - 2;
    const sum = sums[first] - sums[first + inner] - sums[last] + sums[last + inner];
    const square = (squares[first] - squares[first + inner] - squares[last] + squares[last + inner]) >>> 0;
    const area = inner * inner;
    const spread = area * square - sum * sum;
    if (spread <= 0) return -1;
    const norm = Math.fround(1 / Math.sqrt(spread));
    if (area * norm >= 0.1) return -1;
    let tree = 0;
    let node = 0;
    let leaf = 0;
    for (let s = 0; s < stages.length; s++) {
      const end = tree + stages[s];
      let total = 0;
      for (; tree < end; tree++) {
        let at = 0;
        do {
          const n = node + at;
          const c = 12 * n;
          const k = 5 * n;
          let value =
            nodes[k] *
              (sums[place + corners[c]] -
                sums[place + corners[c + 1]] -
                sums[place + corners[c + 2]] +
                sums[place + corners[c + 3]]) +
            nodes[k + 1] *
              (sums[place + corners[c + 4]] -
                sums[place + corners[c + 5]] -
                sums[place + corners[c + 6]] +
                sums[place + corners[c + 7]]);
          if (nodes[k + 2] !== 0) {
            value +=
              nodes[k + 2] *
              (sums[place + corners[c + 8]] -
                sums[place + corners[c + 9]] -
                sums[place + corners[c + 10]] +
                sums[place + corners[c + 11]]);
          }
          at = Math.fround(value * norm) < thresholds[n] ? nodes[k + 3] : nodes[k + 4];
        } while (at > 0);
        total += leaves[leaf - at];
        node += trees[tree];
        leaf += trees[tree] + 1;
      }
      if (total < this.stageThresholds[s]) return s;
    }
    return stages.length;
  }
}

/** Average groups of more than `minNeighbors` similar squares; drop groups inside a stronger one. */
function groupSquares(squares, minNeighbors) {
  const parent = squares.map((_, i) => i);
  const root = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  squares.forEach((one, i) => {
    for (let j = 0; j < i; j++) if (isSimilar(one, squares[j])) parent[root(i)] = root(j);
  });
  const groups = new Map();
  squares.forEach(({ x, y, side }, i) => {
    const group = groups.get(root(i)) ?? groups.set(root(i), { x: 0, y: 0, side: 0, count: 0 }).get(root(i));
    group.x += x;
    group.y += y;
    group.side += side;
    group.count += 1;
  });
  const means = [...groups.values()]
    .filter(({ count }) => count > minNeighbors)
    .map(({ x, y, side, count }) => {
      const mean = (sum) => round(Math.fround(sum * Math.fround(1 / count)));
      return { x: mean(x), y: mean(y), side: mean(side), count };
    });
  return means.filter((one) => !means.some((other) => other !== one && isWithin(one, other)));
}

function isSimilar(one, other) {
  const tolerance = GROUP_EPS * Math.min(one.side, other.side);
  const gaps = [one.x - other.x, one.y - other.y, one.x + one.side - other.x - other.side];
  return [...gaps, one.y + one.side - other.y - other.side].every((gap) => Math.abs(gap) <= tolerance);
}

function isWithin(one, other) {
  const edge = round(other.side * GROUP_EPS);
  const [inX, inY] = ["x", "y"].map(
    (axis) => one[axis] >= other[axis] - edge && one[axis] + one.side <= other[axis] + other.side + edge,
  );
  return inX && inY && (other.count > Math.max(3, one.count) || one.count < 3);
}
