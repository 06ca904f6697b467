// Find faces and classify them, as emotion.inference.predictor does in Python.

import { BlazeFace } from "./blazeface.js";
import * as ort from "./ort.js";
import { cropSquare, enlarge, round, shrink, toGray, toRGB, warp } from "./pixels.js";

const BATCH_SIZE = 8; // faces classified together; limits memory

let model;
let detector;
let network;
let queue = Promise.resolve();

self.onmessage = ({ data: { id, task, ...request } }) => {
  const run = task === "load" ? load : predict;
  queue = queue // one at a time, as the runtime requires
    .then(() => run(request))
    .then((result) => ({ id, result }))
    .catch((error) => ({ id, error: error.message || String(error) }))
    .then((message) => self.postMessage(message));
};

async function load() {
  let faces, weights, runtime;
  [model, faces, weights, runtime] = await Promise.all([
    download("model.json", "json"),
    download("detector.onnx", "arrayBuffer"),
    download("model.onnx", "arrayBuffer"),
    download("ort.wasm", "arrayBuffer"),
  ]);
  ort.env.wasm.numThreads = 1; // more threads need headers that not every host sends
  ort.env.wasm.wasmBinary = runtime; // independent of the host's media types
  detector = new BlazeFace(await start("detector.onnx", faces), ort.Tensor, model.detector);
  network = await start("model.onnx", weights);
  const { name, classes, colors, side, channels, synthetic } = model;
  return { name, classes, colors, side, channels, synthetic };
}

async function download(name, format) {
  const response = await fetch(new URL(name, import.meta.url)).catch(() => ({ status: "no answer" }));
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status}). Is the folder complete?`);
  return response[format]().catch(() => refuse(name));
}

function start(name, bytes) {
  return ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] }).catch((error) => {
    const noRuntime = error.message.startsWith("no available backend");
    return noRuntime ? refuse("ort.wasm", " The browser must support WebAssembly SIMD (2023 or later).") : refuse(name);
  });
}

function refuse(name, advice = "") {
  throw new Error(`${name} cannot be read. Is it complete? Copy it again, or export the page again.${advice}`);
}

// Return the faces as emotion.inference.predictor.Face.to_dict does, with maps if requested.
async function predict({ map, ...image }) {
  const start = performance.now();
  const pixels = toRGB(image);
  const boxes = await detector.detect(pixels);
  const faces = [];
  for (let first = 0; first < boxes.length; first += BATCH_SIZE) {
    const batch = boxes.slice(first, first + BATCH_SIZE);
    const results = await classify(batch.map((box) => crop(pixels, box)));
    batch.forEach(({ left, top, side, score, angle }, i) => {
      faces.push({ box: [left, top, side, side], angle, score, ...results[i], map: map ? results[i].map : null });
    });
  }
  return { faces, milliseconds: performance.now() - start };
}

// Crop a face, upright, and resize it to the network's input.
function crop(image, box) {
  const side = Math.max(1, round(box.side));
  const square = box.angle ? turned(image, box, side) : cropSquare(image, round(box.left), round(box.top), side);
  const face = model.channels === 1 ? toGray(square) : square;
  return (side > model.side ? shrink : enlarge)(face, model.side, model.side).data;
}

function turned(image, { left, top, side: length, angle }, side) {
  const [cos, sin] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const [x, y] = [left, top].map((edge) => round(1000 * (edge + (length - 1) / 2)) / 1000); // pixel centers
  const half = (side - 1) / 2;
  return warp(image, [cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos)], side, true);
}

// Return each face's probabilities, and the Grad-CAM map of its most likely class scaled to 0 to 1.
async function classify(faces) {
  const { side, channels } = model;
  const shape = [faces.length, side, side, ...(channels === 1 ? [] : [channels])];
  const data = new Uint8Array(faces.length * side * side * channels);
  faces.forEach((face, i) => data.set(face, i * face.length));
  const { probabilities, map } = await network.run({ faces: new ort.Tensor("uint8", data, shape) });
  const [, height, width] = map.dims;
  return faces.map((_, i) => {
    const values = Array.from(item(map, i));
    const lowest = Math.min(...values);
    const range = Math.max(...values) - lowest || 1;
    const chances = Array.from(item(probabilities, i));
    const probability = Math.max(...chances);
    return {
      label: isBlank(faces[i]) ? "unclear" : model.classes[chances.indexOf(probability)],
      probability,
      probabilities: Object.fromEntries(model.classes.map((name, k) => [name, chances[k]])),
      map: { width, height, values: values.map((value) => (value - lowest) / range) },
    };
  });
}

// Whether all pixels have nearly the same brightness.
function isBlank(face) {
  const [{ channels }, count] = [model, face.length / model.channels];
  const brightness = Array.from({ length: count }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += face[i * channels + c];
    return sum / channels;
  });
  const mean = brightness.reduce((sum, value) => sum + value, 0) / count;
  const variance = brightness.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
  return Math.sqrt(variance) < model.min_contrast;
}

function item({ data, dims }, index) {
  const length = data.length / dims[0];
  return data.subarray(index * length, (index + 1) * length);
}
