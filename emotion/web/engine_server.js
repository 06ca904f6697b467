// Has the server that this page came from look at pictures. The other engine of the page looks in the browser itself.

const SMALL = 300 * 300; // pixels: JPEG would change what is seen in so little, so that it travels as PNG
const PATIENCE = 30_000; // milliseconds

// {name, classes, side, channels, private: where pictures go, without_maps: why there are no maps, or null}
export async function open() {
  return asked("api/about");
}

// {faces: [{left, top, side, probabilities, map}], milliseconds from asking to having the answer}; see app.js
export async function look(source, { map = false } = {}) {
  const began = performance.now();
  const small = source.width * source.height <= SMALL;
  const body = await new Promise((done) => source.toBlob(done, small ? "image/png" : "image/jpeg", 0.92));
  if (!body) throw new Error("The browser could not pack the picture.");
  const { faces } = await asked(map ? "api/look?map=1" : "api/look", { method: "POST", body });
  return { faces, milliseconds: performance.now() - began };
}

async function asked(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const told = await response.json().catch(() => null);
  if (!response.ok) throw new Error(told?.error ?? `The server answered with status ${response.status}.`);
  if (!told) throw new Error("The server's answer could not be read.");
  return told;
}
