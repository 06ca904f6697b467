// The page: takes an image from a file, the clipboard or the camera, and shows the boxes and probabilities that the
// engine returns. engine.js is either engine_server.js (a server) or engine_local.js (the browser itself).

import { load, predict } from "./engine.js";

const MAX_SIDE = 1280; // pixels of an image on the page
const CAMERA_SIDE = 640;
const RETRY_DELAY = 1000; // milliseconds until the camera continues after an error
const UNCLEAR_COLOR = "#8c919b";
const HEAT_COLORS = [[64, 16, 122], [163, 44, 123], [236, 107, 73], [251, 191, 61], [252, 254, 165]]; // low to high
const CAMERA_ERRORS = {
  NotAllowedError: "Access to the camera was denied. Allow it in the browser's address bar, or choose an image.",
  NotFoundError: "No camera was found. Connect one, or choose an image.",
  NotReadableError: "The camera cannot be opened. Is another program using it?",
};
const CAMERA_ON = "The camera is on. Press Escape to stop it.";

const byId = (id) => document.getElementById(id);
const [chooseButton, fileInput, cameraButton, mapSwitch] = ["choose", "file", "camera", "map"].map(byId);
const [dropzone, frame, image, boxes, video] = ["dropzone", "frame", "image", "boxes", "video"].map(byId);
const [message, timing, faceList, empty] = ["message", "timing", "faces", "empty"].map(byId);

let classes = [];
let colors = {}; // by class
let task = 0; // number of the current task; results of earlier ones are dropped
let cameraOn = false;
let shown = null; // {image, mirrored}; an image is {width, height, file, draw}, see `fromSource`
let lastRequest = Promise.resolve();

// One request at a time; the result says whether it has maps.
function enqueue(image) {
  const result = lastRequest.then(async () => {
    const map = mapSwitch.checked;
    return { ...(await predict(image, { map })), mapped: map };
  });
  lastRequest = result.catch(() => {});
  return result;
}

function report(text, isError = false) {
  message.classList.toggle("error", isError);
  if (message.textContent !== text) message.textContent = text;
}

// ---- images ----

async function openImage(blob) {
  if (!classes.length) return; // the network is not loaded; the page says why
  stopCamera();
  const own = ++task;
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    if (own === task) fail(`${blob.name || "The pasted file"} is not an image that this browser can open.`);
    return;
  }
  await process(fromSource(bitmap, bitmap.width, bitmap.height, blob), own, false);
}

// An image for the engine, which reads the file, or draws the source with a longer side of at most `maxSide`.
function fromSource(source, width, height, file = null) {
  return { width, height, file, draw: (maxSide) => draw(source, width, height, maxSide) };
}

// Draw on white, shrunk to a longer side of at most `maxSide`.
function draw(source, width, height, maxSide, canvas = document.createElement("canvas")) {
  const scale = Math.min(1, maxSide / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function process(image, own, mirrored) {
  report("Processing…");
  try {
    const result = await enqueue(image);
    if (own !== task) return;
    show(image, result, mirrored);
    report(summarize(result.faces));
    timing.textContent = `${Math.round(result.milliseconds)} ms`;
    if (mapSwitch.checked && !result.mapped) await process(image, own, mirrored); // switched on in the meantime
  } catch (error) {
    if (own !== task) return;
    if (image === shown?.image) report(error.message, true);
    else fail(error.message);
  }
}

// Report an error of a new image, and remove the previous one.
function fail(text) {
  report(text, true);
  shown = null;
  frame.hidden = true;
  byId("hint").hidden = false;
  dropzone.classList.remove("filled");
  boxes.replaceChildren();
  faceList.replaceChildren();
  empty.hidden = false;
  empty.textContent = "";
  timing.textContent = "";
}

function summarize(faces) {
  if (!faces.length) return "No face found. Faces should be well lit and not too small.";
  return faces.length === 1 ? "1 face found." : `${faces.length} faces found.`;
}

// ---- camera ----

async function startCamera() {
  const own = ++task;
  if (!navigator.mediaDevices?.getUserMedia) {
    report("Browsers open the camera only on the machine that serves the page, or over https.", true);
    return;
  }
  setCameraOn(true);
  report("Waiting for the camera…");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: CAMERA_SIDE }, facingMode: "user" } });
    if (own !== task) return;
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => own === task && stopCamera("The camera stopped.", true));
    video.srcObject = stream;
    await video.play();
    if (own === task) report(CAMERA_ON);
    await processCamera(own, track.getSettings().facingMode !== "environment");
  } catch (error) {
    if (own === task) stopCamera(CAMERA_ERRORS[error.name] ?? `The camera cannot be used (${error.message}).`, true);
  } finally {
    stream?.getTracks().forEach((track) => track.stop());
    if (own === task || !cameraOn) video.srcObject = null;
  }
}

// Process the latest frame each time the previous one is done.
async function processCamera(own, mirrored) {
  const canvas = document.createElement("canvas");
  const times = [];
  while (own === task) {
    await new Promise(requestAnimationFrame); // pauses while the page is hidden
    if (own !== task || !video.videoWidth) continue;
    draw(video, video.videoWidth, video.videoHeight, CAMERA_SIDE, canvas);
    const image = fromSource(canvas, canvas.width, canvas.height);
    try {
      const result = await enqueue(image);
      if (own !== task) return;
      show(image, result, mirrored);
      times.push(performance.now());
      while (times.length > 30 || times[0] < times.at(-1) - 2000) times.shift();
      timing.textContent = `${frameRate(times)}${Math.round(result.milliseconds)} ms per frame`;
      if (message.classList.contains("error")) report(CAMERA_ON);
    } catch (error) {
      if (own !== task) return;
      report(error.message, true);
      await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY));
    }
  }
}

function frameRate(times) {
  const seconds = (times.at(-1) - times[0]) / 1000;
  return times.length < 3 ? "" : `${((times.length - 1) / seconds).toFixed(1)} frames per second, `;
}

function stopCamera(text = "The camera is off.", isError = false) {
  if (!cameraOn) return;
  task += 1;
  setCameraOn(false);
  timing.textContent = "";
  report(text, isError);
}

function setCameraOn(on) {
  cameraOn = on;
  cameraButton.textContent = on ? "Stop camera" : "Start camera";
}

// ---- results ----

function show(source, result, mirrored) {
  shown = { image: source, mirrored };
  const { width, height } = source;
  frame.style.setProperty("--ratio", width / height);
  frame.classList.toggle("mirrored", mirrored);
  frame.hidden = false;
  byId("hint").hidden = true;
  dropzone.classList.add("filled");
  const drawn = source.draw(MAX_SIDE);
  draw(drawn, drawn.width, drawn.height, MAX_SIDE, image);
  const left = ({ box }) => (mirrored ? width - box[0] - box[2] : box[0]);
  const faces = [...result.faces];
  if (cameraOn) faces.sort((a, b) => left(a) - left(b)); // keeps numbers stable while faces move
  boxes.replaceChildren(
    ...faces.map((face, i) => {
      const [, top, across, down] = face.box;
      const angle = mirrored ? -face.angle : face.angle;
      return createBox(face, [left(face) / width, top / height, across / width, down / height], angle, i);
    }),
  );
  faces.forEach((face, i) => updateCard(faceList.children[i] ?? faceList.appendChild(createCard(i)), face));
  while (faceList.children.length > faces.length) faceList.lastChild.remove();
  empty.hidden = faces.length > 0;
  empty.textContent = "No face found.";
  const labels = faces.map((face, i) => `${i + 1} ${face.label}`).join(", ");
  image.setAttribute("aria-label", `Image with ${labels || "no face"}`);
}

function create(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// Give an element the color of a label, and its text black or white.
function color(element, label) {
  const value = colors[label] ?? UNCLEAR_COLOR;
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(value.slice(start, start + 2), 16));
  element.style.setProperty("--color", value);
  element.style.setProperty("--on-color", 0.299 * red + 0.587 * green + 0.114 * blue > 150 ? "#14161a" : "#fff");
}

function createBox(face, position, angle, i) {
  const element = create("div", "box");
  color(element, face.label);
  if (angle) element.style.transform = `rotate(${angle}deg)`;
  ["left", "top", "width", "height"].forEach((side, k) => (element.style[side] = `${100 * position[k]}%`));
  if (face.map) element.append(createHeatmap(face.map));
  const number = create("span", "number", i + 1);
  number.style.marginLeft = `${100 * Math.max(0, -position[0] / position[2])}%`; // within the image
  element.append(number);
  return element;
}

// High values are more opaque.
function createHeatmap({ width, height, values }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  values.forEach((value, i) => {
    const position = Math.min(value, 0.9999) * (HEAT_COLORS.length - 1);
    const [low, high] = [HEAT_COLORS[Math.floor(position)], HEAT_COLORS[Math.floor(position) + 1]];
    const color = low.map((from, k) => from + (position % 1) * (high[k] - from));
    pixels.data.set([...color, 255 * Math.min(0.65, 1.3 * value)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function createCard(i) {
  const element = create("li", "face");
  const title = create("h3", "");
  title.append(create("span", "number", i + 1), create("span", "title"));
  const bars = create("ul", "bars");
  for (const name of classes) {
    const row = create("li", "");
    const track = create("span", "track");
    track.setAttribute("aria-hidden", "true");
    const bar = create("span", "");
    bar.style.background = colors[name];
    track.append(bar);
    row.append(create("span", "", name), track, create("span", "percent"));
    bars.append(row);
  }
  element.append(title, bars);
  return element;
}

function updateCard(element, { label, probabilities }) {
  color(element, label);
  element.querySelector(".title").textContent = label;
  const values = classes.map((name) => probabilities[name]);
  const percents = roundPercents(values);
  [...element.querySelectorAll(".bars li")].forEach((row, i) => {
    row.classList.toggle("best", classes[i] === label);
    row.querySelector(".track span").style.width = `${100 * values[i]}%`;
    row.querySelector(".percent").textContent = `${percents[i]} %`;
  });
}

// Round to whole percents that add up to 100: the largest remainders are rounded up.
function roundPercents(probabilities) {
  const exact = probabilities.map((probability) => 100 * probability);
  const whole = exact.map(Math.floor);
  const order = exact.map((_, i) => i).sort((a, b) => exact[b] - whole[b] - (exact[a] - whole[a]));
  const missing = 100 - whole.reduce((sum, percent) => sum + percent, 0);
  order.slice(0, Math.max(0, missing)).forEach((i) => (whole[i] += 1));
  return whole;
}

// ---- events ----

chooseButton.addEventListener("click", () => fileInput.click());
fileInput.addEventListener("change", () => {
  if (fileInput.files.length) openImage(fileInput.files[0]);
  fileInput.value = ""; // so that the same file can be chosen again
});
cameraButton.addEventListener("click", () => (cameraOn ? stopCamera() : startCamera()));
mapSwitch.addEventListener("change", () => {
  byId("legend").hidden = !mapSwitch.checked;
  frame.classList.toggle("mapped", mapSwitch.checked);
  if (mapSwitch.checked && shown && !cameraOn) process(shown.image, ++task, shown.mirrored);
});
document.addEventListener("keydown", (event) => event.key === "Escape" && stopCamera());
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) openImage(file);
  else report("The clipboard contains no image.", true);
});
let dragDepth = 0; // dragenter and dragleave fire for every element on the way
document.addEventListener("dragenter", () => dropzone.classList.toggle("dragging", ++dragDepth > 0));
document.addEventListener("dragleave", () => dropzone.classList.toggle("dragging", --dragDepth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // the browser would open the file
  dragDepth = 0;
  dropzone.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) openImage(file);
  else report("That is not a file. Save the image first, or copy and paste it.", true);
});
window.addEventListener("pagehide", () => stopCamera());

try {
  const about = await load();
  classes = about.classes;
  colors = Object.fromEntries(classes.map((name, i) => [name, about.colors[i]]));
  const input = `${about.side} x ${about.side} ${about.channels === 1 ? "gray" : "color"} pixels`;
  const names = `${classes.slice(0, -1).join(", ")} or ${classes.at(-1)}`;
  byId("about").textContent = `${about.name} classifies faces of ${input} as ${names}.`;
  byId("synthetic").hidden = !about.synthetic;
  byId("privacy").textContent = about.privacy;
  chooseButton.disabled = cameraButton.disabled = false;
  mapSwitch.disabled = Boolean(about.maps_unavailable);
  byId("maps-unavailable").hidden = !about.maps_unavailable;
  byId("maps-unavailable").textContent = about.maps_unavailable ?? "";
} catch (error) {
  byId("about").textContent = "";
  report(error.message, true);
}
