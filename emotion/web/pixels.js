// Pictures made grey, cut and resized to the very pixels that OpenCV makes of them in Python.
//
// A picture is {width, height, channels, data}, data row by row. The arithmetic is that of OpenCV 4 (imgproc/src/
// color_rgb.simd.hpp and resize.cpp): fixed-point where it has fixed-point, single precision where it has that.

/** The nearest whole number, a half to the even one, as in Python and OpenCV. */
export function rounded(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** RGBA pixels as one channel. */
export function grey({ width, height, data }) {
  const out = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < out.length; i++, j += 4) {
    out[i] = (9798 * data[j] + 19235 * data[j + 1] + 3735 * data[j + 2] + 16384) >> 15;
  }
  return { width, height, channels: 1, data: out };
}

/** RGBA pixels as three channels. */
export function rgb({ width, height, data }) {
  const out = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < out.length; i += 3, j += 4) {
    out[i] = data[j];
    out[i + 1] = data[j + 1];
    out[i + 2] = data[j + 2];
  }
  return { width, height, channels: 3, data: out };
}

/** A square of a picture; what lies over the picture's edge is its edge drawn out. */
export function square(picture, left, top, side) {
  const { width, height, channels, data } = picture;
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

/** INTER_AREA: the mean over what each new pixel covers; no side may grow. */
export function shrunk(picture, width, height) {
  const across = picture.width / width;
  const down = picture.height / height;
  if (Number.isInteger(across) && Number.isInteger(down)) return blocks(picture, across, down);
  const { channels, data } = picture;
  const f = Math.fround;
  const columns = shares(picture.width, width, across);
  const out = new Uint8Array(width * height * channels);
  const line = new Float32Array(width * channels);
  const sum = new Float32Array(width * channels);
  let row = 0;
  const flush = () => out.set(sum.map(rounded), row * line.length);
  for (const [to, from, weight] of shares(picture.height, height, down)) {
    line.fill(0);
    const start = from * picture.width * channels;
    for (const [x, source, part] of columns) {
      for (let c = 0; c < channels; c++) {
        line[x * channels + c] += f(data[start + source * channels + c] * part);
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

/** INTER_LINEAR in OpenCV's 11 bits. */
export function enlarged(picture, width, height) {
  const { channels, data } = picture;
  const across = neighbours(picture.width, width);
  const down = neighbours(picture.height, height);
  const out = new Uint8Array(width * height * channels);
  const line = (row, { from, next, weight }, c) => {
    const start = row * picture.width;
    const [first, second] = [data[(start + from) * channels + c], data[(start + next) * channels + c]];
    return first * (2048 - weight) + second * weight;
  };
  let to = 0;
  for (const { from, next, weight } of down) {
    for (const column of across) {
      for (let c = 0; c < channels; c++) {
        const above = ((2048 - weight) * (line(from, column, c) >> 4)) >> 16;
        const below = (weight * (line(next, column, c) >> 4)) >> 16;
        out[to++] = (above + below + 2) >> 2;
      }
    }
  }
  return { width, height, channels, data: out };
}

/** INTER_LINEAR_EXACT of one channel in 8 bits, into `out`, which the detector uses again and again. */
export function scaled(picture, width, height, out) {
  if (width === picture.width && height === picture.height) return out.set(picture.data);
  const columns = exact(picture.width, width);
  const rows = exact(picture.height, height);
  const { from, next, weight } = columns;
  for (let y = 0, to = 0; y < height; y++) {
    const above = rows.from[y] * picture.width;
    const below = rows.next[y] * picture.width;
    const down = rows.weight[y];
    for (let x = 0; x < width; x++, to++) {
      const w = weight[x];
      const a = from[x];
      const b = next[x];
      const first = picture.data[above + a] * (256 - w) + picture.data[above + b] * w;
      const second = picture.data[below + a] * (256 - w) + picture.data[below + b] * w;
      out[to] = (first * (256 - down) + second * down + 32768) >> 16;
    }
  }
}

function blocks(picture, across, down) {
  const { channels, data } = picture;
  const [width, height] = [picture.width / across, picture.height / down];
  const part = Math.fround(1 / (across * down));
  const quarter = across === 2 && down === 2;
  const out = new Uint8Array(width * height * channels);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let j = y * down; j < (y + 1) * down; j++) {
          for (let i = x * across; i < (x + 1) * across; i++) sum += data[(j * picture.width + i) * channels + c];
        }
        out[to++] = quarter ? (sum + 2) >> 2 : rounded(Math.fround(sum * part));
      }
    }
  }
  return { width, height, channels, data: out };
}

/** Which share [to, from, weight] of each new pixel comes from which old one. */
function shares(from, to, scale) {
  const found = [];
  for (let i = 0; i < to; i++) {
    const [begin, end] = [i * scale, i * scale + scale];
    const cell = Math.min(scale, from - begin);
    const last = Math.min(Math.floor(end), from - 1);
    const first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) found.push([i, first - 1, Math.fround((first - begin) / cell)]);
    for (let k = first; k < last; k++) found.push([i, k, Math.fround(1 / cell)]);
    if (end - last > 1e-3) found.push([i, last, Math.fround(Math.min(end - last, 1, cell) / cell)]);
  }
  return found;
}

/** Between which old pixels each new one lies, and how near to the second, of 2048. */
function neighbours(from, to) {
  const scale = 1 / (to / from);
  return Array.from({ length: to }, (_, i) => {
    const place = Math.fround((i + 0.5) * scale - 0.5);
    const first = Math.floor(place);
    return {
      from: Math.min(Math.max(first, 0), from - 1),
      next: Math.min(Math.max(first + 1, 0), from - 1),
      weight: rounded(Math.fround(Math.fround(place - first) * 2048)),
    };
  });
}

/** The same of 256, as columns. */
function exact(from, to) {
  const scale = 1 / (to / from);
  const table = { from: new Int32Array(to), next: new Int32Array(to), weight: new Int32Array(to) };
  for (let i = 0; i < to; i++) {
    const place = scale * (i + 0.5) - 0.5;
    const first = Math.floor(place);
    const inside = first >= 0 && first < from - 1;
    table.from[i] = Math.min(Math.max(first, 0), from - 1);
    table.next[i] = inside ? first + 1 : table.from[i];
    table.weight[i] = inside ? rounded((place - first) * 256) : 0;
  }
  return table;
}
