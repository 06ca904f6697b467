// Finds the faces of pictures and has the network judge them, as emotion.inference.predictor does in Python.

import { Haar } from "./haar.js";
import * as ort from "./ort.js";
import { enlarged, grey, rgb, rounded, shrunk, square } from "./pixels.js";

const TOGETHER = 8; // faces that are judged at once: bounds the memory

let model;
let haar;
let session;
let before = Promise.resolve();

self.onmessage = ({ data: { number, kind, ...question } }) => {
  const task = kind === "open" ? open : look;
  before = before // one at a time: the runtime takes no more
    .then(() => task(question))
    .then((told) => ({ number, told }))
    .catch((error) => ({ number, error: error.message || String(error) }))
    .then((message) => self.postMessage(message));
};

async function open() {
  let cascade, network, runtime;
  [model, cascade, network, runtime] = await Promise.all([
    loaded("model.json", "json"),
    loaded("cascade.json", "json"),
    loaded("model.onnx", "arrayBuffer"),
    loaded("ort.wasm", "arrayBuffer"),
  ]);
  haar = new Haar(cascade, model.detector);
  ort.env.wasm.numThreads = 1; // more need headers that not every host sends
  ort.env.wasm.wasmBinary = runtime; // whatever type the host says it has
  session = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: ["wasm"] });
  const { name, classes, side, channels } = model;
  return { name, classes, side, channels };
}

async function loaded(name, kind) {
  const response = await fetch(new URL(name, import.meta.url)).catch(() => ({ status: "no answer" }));
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status}). Is the folder whole?`);
  return response[kind]();
}

async function look({ map, ...picture }) {
  const began = performance.now();
  const boxes = haar.find(picture);
  const pixels = boxes.length && model.channels === 1 ? grey(picture) : rgb(picture);
  const faces = [];
  for (let start = 0; start < boxes.length; start += TOGETHER) {
    const some = boxes.slice(start, start + TOGETHER);
    const judged = await judge(some.map((box) => crop(pixels, box)));
    some.forEach((box, i) => faces.push({ ...box, ...judged[i], map: map ? judged[i].map : null }));
  }
  return { faces, milliseconds: performance.now() - began };
}

// The face in a box as the network takes it.
function crop(picture, { left, top, side }) {
  const inside = square(picture, rounded(left), rounded(top), Math.max(1, rounded(side)));
  const resized = inside.width > model.side ? shrunk : enlarged;
  return resized(inside, model.side, model.side).data;
}

// Probabilities of every face, and the map of its likeliest class, its largest value 1 unless nothing speaks for it.
async function judge(faces) {
  const { side, channels } = model;
  const shape = [faces.length, side, side, ...(channels === 1 ? [] : [channels])];
  const data = new Uint8Array(faces.length * side * side * channels);
  faces.forEach((face, i) => data.set(face, i * face.length));
  const { probabilities, map } = await session.run({ faces: new ort.Tensor("uint8", data, shape) });
  const [, height, width] = map.dims;
  return faces.map((_, i) => {
    const values = Array.from(part(map, i));
    const least = Math.min(...values); // as Grad-CAM's maps are scaled in Python
    const reach = Math.max(...values) - least || 1;
    return {
      probabilities: Array.from(part(probabilities, i)),
      map: { width, height, values: values.map((value) => (value - least) / reach) },
    };
  });
}

function part({ data, dims }, index) {
  const length = data.length / dims[0];
  return data.subarray(index * length, (index + 1) * length);
}
