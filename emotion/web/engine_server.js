// Engine of the page that sends images to the server. The alternative, engine_local.js, runs in the browser.

// Which the server decodes as browsers do; they ignore the orientation of a WEBP.
const FILE_TYPES = ["image/png", "image/jpeg", "image/gif", "image/bmp"];
const LOSSLESS_PIXELS = 300 * 300; // camera images up to this size are sent as PNG, since JPEG would alter small faces
const MAX_SIDE = 4096; // pixels of other files
const JPEG_QUALITY = 0.92;
const TIMEOUT = 30_000; // milliseconds

let maxBytes; // that the server accepts

// Resolves to {name, classes, colors, side, channels, synthetic, privacy, maps_unavailable: reason or null,
// max_bytes}.
export async function load() {
  const about = await request("api/about");
  maxBytes = about.max_bytes;
  return about;
}

// Resolves to {faces: [{box, angle, label, probabilities, map, ...}], milliseconds including the transfer}.
export async function predict({ width, file, draw }, { map = false } = {}) {
  const start = performance.now();
  let [body, scale] = [file, 1];
  if (!FILE_TYPES.includes(file?.type)) {
    const canvas = draw(MAX_SIDE);
    scale = width / canvas.width;
    const lossless = file || canvas.width * canvas.height <= LOSSLESS_PIXELS;
    body = lossless && (await encode(canvas, "image/png"));
    if (!body || body.size > maxBytes) body = await encode(canvas, "image/jpeg");
    if (!body) throw new Error("The browser could not encode the image.");
  }
  const { faces } = await request(map ? "api/predict?map=1" : "api/predict", { method: "POST", body });
  for (const face of faces) face.box = face.box.map((value) => value * scale);
  return { faces, milliseconds: performance.now() - start };
}

function encode(canvas, type) {
  return new Promise((done) => canvas.toBlob(done, type, JPEG_QUALITY));
}

async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
  } catch {
    throw new Error("The server does not respond. Is it still running?");
  }
  const result = await response.json().catch(() => null);
  if (!response.ok) throw new Error(result?.error ?? `The server responded with status ${response.status}.`);
  if (!result) throw new Error("The server's response could not be read.");
  return result;
}
