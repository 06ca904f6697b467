// OpenCV's face detector, CascadeClassifier with the cascade of boosted trees that Python uses, in plain JavaScript.
//
// The same candidates, groups and rounding as OpenCV 4 (objdetect/src/cascadedetect.cpp). Its WebAssembly builds need
// a policy that lets scripts make scripts, and weigh 10 MB; this needs neither.

import { grey, rounded, scaled, shrunk } from "./pixels.js";

const ALIKE = 0.2; // sides, by which squares of one face may differ: OpenCV's GROUP_EPS

/** Finds faces as `emotion.inference.detectors.Haar` does; `settings` are its own, `cascade` its trees. */
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
    this.trees = Int32Array.from(cascade.stages.flatMap(([trees]) => trees)); // nodes of each
    this.stages = Int32Array.from(cascade.stages, ([trees]) => trees.length);
    this.least = Float32Array.from(cascade.stages, ([, least]) => Math.fround(least) - Math.fround(1e-5)); // its slack
    this.stride = 0;
  }

  /** Squares {left, top, side} of RGBA pixels, the largest first. */
  find(pixels) {
    const { longest, smallest, share, lower } = this.settings;
    let picture = grey(pixels);
    const factor = Math.min(1, longest / Math.max(picture.width, picture.height));
    if (factor < 1) {
      const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, rounded(factor * side)));
      picture = shrunk(picture, width, height);
    }
    const least = Math.max(this.window, rounded(smallest * Math.max(picture.width, picture.height)));
    const boxes = grouped(this.#candidates(picture, least), this.settings.neighbours).map(({ x, y, side: width }) => {
      const side = width / share;
      const edge = (side - width) / 2;
      return { left: (x - edge) / factor, top: (y - edge + lower * side) / factor, side: side / factor };
    });
    return boxes.sort((one, other) => other.side - one.side);
  }

  /** Every square {x, y, side} of `least` or more that passes all stages. */
  #candidates(picture, least) {
    const { width, height } = picture;
    const scales = [];
    for (let factor = 1; rounded(this.window * factor) <= Math.min(width, height); factor *= this.settings.step) {
      if (rounded(this.window * Math.fround(factor)) >= least) scales.push(Math.fround(factor));
    }
    if (!scales.length) return [];
    const size = (scale) => [width, height].map((side) => rounded(Math.fround(side / scale)));
    this.#allot(...size(scales[0]));
    const found = [];
    for (const scale of scales) {
      const [across, down] = size(scale);
      scaled(picture, across, down, this.level);
      this.#integrate(across, down);
      const step = scale >= 2 ? 1 : 2;
      const side = rounded(Math.fround(this.window * scale));
      for (let y = 0; y < down + 1 - this.window; y += step) {
        for (let x = 0; x < across + 1 - this.window; x += step) {
          const stage = this.#passes(x, y, across, down);
          if (stage === this.stages.length) {
            found.push({ x: rounded(Math.fround(x * scale)), y: rounded(Math.fround(y * scale)), side });
          }
          if (stage === 0) x += step; // nothing like a face: its neighbour is not looked at
        }
      }
    }
    return found;
  }

  /** Room for the largest level, and the features' corners as places in its integral; kept while the size stays. */
  #allot(width, height) {
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
        squares[to] = squares[to - stride] + square; // may wrap: differences of 32 bits are right all the same
      }
    }
  }

  /** How many stages the window at x, y passes; -1 where it is too even or lies over the edge. */
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
      if (total < this.least[s]) return s;
    }
    return stages.length;
  }
}

/** The means of squares that lie alike, more than `neighbours` of them, but for those inside a surer one. */
function grouped(squares, neighbours) {
  const parent = squares.map((_, i) => i);
  const root = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  squares.forEach((one, i) => {
    for (let j = 0; j < i; j++) if (alike(one, squares[j])) parent[root(i)] = root(j);
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
    .filter(({ count }) => count > neighbours)
    .map(({ x, y, side, count }) => {
      const mean = (sum) => rounded(Math.fround(sum * Math.fround(1 / count)));
      return { x: mean(x), y: mean(y), side: mean(side), count };
    });
  return means.filter((one) => !means.some((other) => other !== one && within(one, other)));
}

function alike(one, other) {
  const most = ALIKE * Math.min(one.side, other.side);
  const apart = [one.x - other.x, one.y - other.y, one.x + one.side - other.x - other.side];
  return [...apart, one.y + one.side - other.y - other.side].every((gap) => Math.abs(gap) <= most);
}

function within(one, other) {
  const edge = rounded(other.side * ALIKE);
  const [inX, inY] = ["x", "y"].map(
    (axis) => one[axis] >= other[axis] - edge && one[axis] + one.side <= other[axis] + other.side + edge,
  );
  return inX && inY && (other.count > Math.max(3, one.count) || one.count < 3);
}
