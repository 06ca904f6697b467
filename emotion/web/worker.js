// Find faces and classify them, as emotion.inference.predictor does in Python.

import { Haar } from "./haar.js";
import * as ort from "./ort.js";
import { cropSquare, enlarge, round, shrink, toGrey, toRGB } from "./pixels.js";

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
  let cascade, weights, runtime;
  [model, cascade, weights, runtime] = await Promise.all([
    download("model.json", "json"),
    download("cascade.json", "json"),
    download("model.onnx", "arrayBuffer"),
    download("ort.wasm", "arrayBuffer"),
  ]);
  detector = new Haar(cascade, model.detector);
  ort.env.wasm.numThreads = 1; // more threads need headers that not every host sends
  ort.env.wasm.wasmBinary = runtime; // independent of the host's media types
  network = await ort.InferenceSession.create(new Uint8Array(weights), { executionProviders: ["wasm"] });
  const { name, classes, side, channels } = model;
  return { name, classes, side, channels };
}

async function download(name, format) {
  const response = await fetch(new URL(name, import.meta.url)).catch(() => ({ status: "no answer" }));
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status}). Is the folder complete?`);
  return response[format]();
}

async function predict({ map, ...image }) {
  const start = performance.now();
  const boxes = detector.detect(image);
  const pixels = boxes.length && model.channels === 1 ? toGrey(image) : toRGB(image);
  const faces = [];
  for (let first = 0; first < boxes.length; first += BATCH_SIZE) {
    const batch = boxes.slice(first, first + BATCH_SIZE);
    const results = await classify(batch.map((box) => crop(pixels, box)));
    batch.forEach((box, i) => faces.push({ ...box, ...results[i], map: map ? results[i].map : null }));
  }
  return { faces, milliseconds: performance.now() - start };
}

// Crop a face and resize it to the network's input.
function crop(image, { left, top, side }) {
  const face = cropSquare(image, round(left), round(top), Math.max(1, round(side)));
  const resize = face.width > model.side ? shrink : enlarge;
  return resize(face, model.side, model.side).data;
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
    return {
      probabilities: Array.from(item(probabilities, i)),
      map: { width, height, values: values.map((value) => (value - lowest) / range) },
    };
  });
}

function item({ data, dims }, index) {
  const length = data.length / dims[0];
  return data.subarray(index * length, (index + 1) * length);
}
