// Engine of the page that runs in the browser, in a worker. The alternative, engine_server.js, uses a server.

const MAX_SIDE = 4096; // pixels; larger images are shrunk, as in Python
const PRIVACY = "Images stay in this browser, which processes them itself and stores nothing.";
const START_FAILED =
  "The engine could not be started. Is the folder complete? The browser must support module workers (2023 or later).";

const pending = new Map(); // requests by id
let worker;
let lastId = 0;

// Resolves to {name, classes, colors, side, channels, synthetic, privacy}.
export async function load() {
  worker ??= startWorker();
  return { ...(await request({ task: "load" })), privacy: PRIVACY };
}

// Resolves to {faces: [{box, angle, label, probabilities, map, ...}], milliseconds}.
export async function predict(image, { map = false } = {}) {
  const canvas = image.draw(MAX_SIDE);
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const result = await request({ task: "predict", width, height, data, map }, [data.buffer]);
  for (const face of result.faces) face.box = face.box.map((value) => (value * image.width) / width);
  return result;
}

// A worker created from a blob inherits the page's security policy, which blocks all other hosts; one created from a
// file would have the policy that its host sends.
function startWorker() {
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  worker.onmessage = ({ data: { id, error, result } }) => {
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    if (error) reject(new Error(error));
    else resolve(result);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const { reject } of pending.values()) reject(new Error(START_FAILED));
    pending.clear();
  };
  return worker;
}

function request(message, transfer = []) {
  return new Promise((resolve, reject) => {
    pending.set(++lastId, { resolve, reject });
    worker.postMessage({ id: lastId, ...message }, transfer);
  });
}
