// Convert, crop and resize images with the same results as OpenCV in Python.
//
// An image is {width, height, channels, data}, row by row. The arithmetic follows OpenCV 4 (imgproc/src/
// color_rgb.simd.hpp and resize.cpp): fixed-point or single precision where OpenCV uses it.

/** Round to the nearest integer, halves to even, as Python and OpenCV do. */
export function round(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** RGB to one channel. */
export function toGray({ width, height, data }) {
  const out = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < out.length; i++, j += 3) {
    out[i] = (9798 * data[j] + 19235 * data[j + 1] + 3735 * data[j + 2] + 16384) >> 15;
  }
  return { width, height, channels: 1, data: out };
}

/** RGBA to three channels. */
export function toRGB({ width, height, data }) {
  const out = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < out.length; i += 3, j += 4) {
    out[i] = data[j];
    out[i + 1] = data[j + 1];
    out[i + 2] = data[j + 2];
  }
  return { width, height, channels: 3, data: out };
}

/** Crop a square; pixels beyond the image's edge replicate the edge. */
export function cropSquare(image, left, top, side) {
  const { width, height, channels, data } = image;
  const out = new Uint8Array(side * side * channels);
  let to = 0;
  for (let y = top; y < top + side; y++) {
    const row = Math.min(Math.max(y, 0), height - 1) * width;
    for (let x = left; x < left + side; x++) {
      const from = (row + Math.min(Math.max(x, 0), width - 1)) * channels;
      for (let c = 0; c < channels; c++) out[to++] = data[from + c];
    }
  }
  return { width: side, height: side, channels, data: out };
}

/** INTER_AREA: each new pixel is the mean of the area it covers; neither side may grow. */
export function shrink(image, width, height) {
  const scaleX = image.width / width;
  const scaleY = image.height / height;
  if (Number.isInteger(scaleX) && Number.isInteger(scaleY)) return averageBlocks(image, scaleX, scaleY);
  const { channels, data } = image;
  const f = Math.fround;
  const columns = areaWeights(image.width, width, scaleX);
  const out = new Uint8Array(width * height * channels);
  const line = new Float32Array(width * channels);
  const sum = new Float32Array(width * channels);
  let row = 0;
  const flush = () => out.set(sum.map(round), row * line.length);
  for (const [to, from, weight] of areaWeights(image.height, height, scaleY)) {
    line.fill(0);
    const start = from * image.width * channels;
    for (const [x, source, share] of columns) {
      for (let c = 0; c < channels; c++) {
        line[x * channels + c] += f(data[start + source * channels + c] * share);
      }
    }
    if (to !== row) {
      flush();
      row = to;
      sum.fill(0);
    }
    for (let i = 0; i < line.length; i++) sum[i] += f(weight * line[i]);
  }
  flush();
  return { width, height, channels, data: out };
}

/** INTER_LINEAR with OpenCV's weights of 11 bits. */
export function enlarge(image, width, height) {
  const { channels, data } = image;
  const columns = linearWeights(image.width, width);
  const rows = linearWeights(image.height, height);
  const out = new Uint8Array(width * height * channels);
  const interpolate = (row, { from, next, weight }, c) => {
    const start = row * image.width;
    const [first, second] = [data[(start + from) * channels + c], data[(start + next) * channels + c]];
    return first * (2048 - weight) + second * weight;
  };
  let to = 0;
  for (const { from, next, weight } of rows) {
    for (const column of columns) {
      for (let c = 0; c < channels; c++) {
        const above = ((2048 - weight) * (interpolate(from, column, c) >> 4)) >> 16;
        const below = (weight * (interpolate(next, column, c) >> 4)) >> 16;
        out[to++] = (above + below + 2) >> 2;
      }
    }
  }
  return { width, height, channels, data: out };
}

/** Add black pixels on the right and below. */
export function border(image, width, height) {
  const { channels, data } = image;
  const out = new Uint8Array(width * height * channels);
  for (let y = 0; y < image.height; y++) {
    const row = image.width * channels;
    out.set(data.subarray(y * row, (y + 1) * row), y * width * channels);
  }
  return { width, height, channels, data: out };
}

/**
 * warpAffine with INTER_LINEAR: a square whose pixel (x, y) shows the image at matrix * (x, y, 1). Positions are rounded
 * to 1/32 of a pixel. Outside the image is black, or its edge if `replicate`.
 */
export function warp(image, matrix, side, replicate = false) {
  const { width, height, channels, data } = image;
  const out = new Uint8Array(side * side * channels);
  const clamp = (value, length) => Math.min(Math.max(value, 0), length - 1);
  const fixed = (value) => round(value * 1024);
  for (let y = 0, to = 0; y < side; y++) {
    const startX = fixed(matrix[1] * y + matrix[2]) + 16;
    const startY = fixed(matrix[4] * y + matrix[5]) + 16;
    for (let x = 0; x < side; x++) {
      const [fixedX, fixedY] = [(startX + fixed(matrix[0] * x)) >> 5, (startY + fixed(matrix[3] * x)) >> 5];
      const [left, top, right, down] = [fixedX >> 5, fixedY >> 5, fixedX & 31, fixedY & 31];
      for (let c = 0; c < channels; c++, to++) {
        let sum = 0;
        for (let k = 0; k < 4; k++) {
          const [atX, atY] = [left + (k & 1), top + (k >> 1)];
          if (!replicate && (atX < 0 || atY < 0 || atX >= width || atY >= height)) continue;
          const weight = (k & 1 ? right : 32 - right) * (k >> 1 ? down : 32 - down);
          sum += weight * data[(clamp(atY, height) * width + clamp(atX, width)) * channels + c];
        }
        out[to] = (sum + 512) >> 10;
      }
    }
  }
  return { width: side, height: side, channels, data: out };
}

function averageBlocks(image, blockWidth, blockHeight) {
  const { channels, data } = image;
  const [width, height] = [image.width / blockWidth, image.height / blockHeight];
  const weight = Math.fround(1 / (blockWidth * blockHeight));
  const twoByTwo = blockWidth === 2 && blockHeight === 2;
  const out = new Uint8Array(width * height * channels);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let j = y * blockHeight; j < (y + 1) * blockHeight; j++) {
          const row = j * image.width;
          for (let i = x * blockWidth; i < (x + 1) * blockWidth; i++) sum += data[(row + i) * channels + c];
        }
        out[to++] = twoByTwo ? (sum + 2) >> 2 : round(Math.fround(sum * weight));
      }
    }
  }
  return { width, height, channels, data: out };
}

/** Weights [to, from, weight] of the old pixels in each new one. */
function areaWeights(from, to, scale) {
  const weights = [];
  for (let i = 0; i < to; i++) {
    const [begin, end] = [i * scale, i * scale + scale];
    const cell = Math.min(scale, from - begin);
    const last = Math.min(Math.floor(end), from - 1);
    const first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) weights.push([i, first - 1, Math.fround((first - begin) / cell)]);
    for (let k = first; k < last; k++) weights.push([i, k, Math.fround(1 / cell)]);
    if (end - last > 1e-3) weights.push([i, last, Math.fround(Math.min(end - last, 1, cell) / cell)]);
  }
  return weights;
}

/** The old pixels on both sides of each new one, and the second's weight of 2048. */
function linearWeights(from, to) {
  const scale = 1 / (to / from);
  return Array.from({ length: to }, (_, i) => {
    const position = Math.fround((i + 0.5) * scale - 0.5);
    const first = Math.floor(position);
    return {
      from: Math.min(Math.max(first, 0), from - 1),
      next: Math.min(Math.max(first + 1, 0), from - 1),
      weight: round(Math.fround(Math.fround(position - first) * 2048)),
    };
  });
}
