// The page: a picture comes from a file, the clipboard or the camera, the engine looks at it, boxes and bars show what
// was seen. engine.js is one of two: a server's (engine_server.js), or one within the browser (engine_local.js).

import { look, open } from "./engine.js";

const LONGEST = 1280; // pixels of a picture that is looked at
const OF_CAMERA = 640;
const PAUSE = 1000; // milliseconds before the camera goes on after an error
const COLOURS = ["#6cc3f5", "#f5b13d", "#4fd39a", "#ff9cc7", "#f0e356", "#c3aaff"]; // all light, under dark numbers
const HEAT = [[64, 16, 122], [163, 44, 123], [236, 107, 73], [251, 191, 61], [252, 254, 165]]; // little to much
const PROBLEMS = {
  NotAllowedError: "The camera was not allowed. Allow it for this page in the browser's address bar, or choose a picture.",
  NotFoundError: "No camera was found. Connect one, or choose a picture.",
  NotReadableError: "The camera cannot be opened. Does another program use it?",
};

const part = (id) => document.getElementById(id);
const [chooser, file, cameraButton, mapSwitch] = ["choose", "file", "camera", "map"].map(part);
const [place, frame, picture, boxes, video] = ["place", "frame", "picture", "boxes", "video"].map(part);
const [message, figures, list] = ["message", "figures", "faces"].map(part);

let classes = [];
let turn = 0; // whatever was begun in an earlier one is outdated
let running = false; // the camera
let shown = null; // {source, mirrored}
let asking = Promise.resolve();

// One question at a time.
function looked(source) {
  const answer = asking.then(() => look(source, { map: mapSwitch.checked }));
  asking = answer.catch(() => {});
  return answer;
}

function say(words, faulty = false) {
  message.classList.toggle("faulty", faulty);
  if (message.textContent !== words) message.textContent = words;
}

// ---- pictures ----

async function takePicture(blob) {
  if (!classes.length) return; // the network is not there yet, or never will be, which the page says
  stopCamera();
  const own = ++turn;
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    if (own === turn) say(`${blob.name || "What was pasted"} is no picture that this browser can open.`, true);
    return;
  }
  const source = drawn(bitmap, bitmap.width, bitmap.height, LONGEST);
  bitmap.close();
  await judge(source, own, false);
}

// A canvas with the picture on white, its longer side at most `longest`.
function drawn(image, width, height, longest, canvas = document.createElement("canvas")) {
  const scale = Math.min(1, longest / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function judge(source, own, mirrored) {
  say("Looking.");
  try {
    const answer = await looked(source);
    if (own !== turn) return;
    show(source, answer, mirrored);
    say(summary(answer.faces));
    figures.textContent = `${Math.round(answer.milliseconds)} ms`;
  } catch (error) {
    if (own === turn) say(error.message, true);
  }
}

function summary(faces) {
  if (!faces.length) return "No face was found. One from the front, large enough and well lit, is found best.";
  return faces.length === 1 ? "1 face was found." : `${faces.length} faces were found.`;
}

// ---- camera ----

async function startCamera() {
  const own = ++turn;
  if (!navigator.mediaDevices?.getUserMedia) {
    say("The browser opens the camera only for pages of this machine itself, or over https.", true);
    return;
  }
  setRunning(true);
  say("Waiting for the camera.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: OF_CAMERA }, facingMode: "user" } });
    if (own !== turn) return;
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => own === turn && stopCamera("The camera has stopped.", true));
    video.srcObject = stream;
    await video.play();
    if (own === turn) say("The camera is on. Escape stops it.");
    await watch(own, track.getSettings().facingMode !== "environment");
  } catch (error) {
    if (own === turn) stopCamera(PROBLEMS[error.name] ?? `The camera cannot be used (${error.message}).`, true);
  } finally {
    stream?.getTracks().forEach((track) => track.stop());
    if (own === turn || !running) video.srcObject = null;
  }
}

// Frame after frame, each once the one before has been seen, until its turn is over.
async function watch(own, mirrored) {
  const source = document.createElement("canvas");
  const times = [];
  while (own === turn) {
    await new Promise(requestAnimationFrame); // none while the page is hidden
    if (own !== turn || !video.videoWidth) continue;
    drawn(video, video.videoWidth, video.videoHeight, OF_CAMERA, source);
    try {
      const answer = await looked(source);
      if (own !== turn) return;
      show(source, answer, mirrored);
      times.push(performance.now());
      while (times.length > 30 || times[0] < times.at(-1) - 2000) times.shift();
      figures.textContent = `${rate(times)}${Math.round(answer.milliseconds)} ms each`;
      if (message.classList.contains("faulty")) say("The camera is on. Escape stops it.");
    } catch (error) {
      if (own !== turn) return;
      say(error.message, true);
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  }
}

function rate(times) {
  const seconds = (times.at(-1) - times[0]) / 1000;
  return times.length < 3 ? "" : `${((times.length - 1) / seconds).toFixed(1)} pictures a second, `;
}

function stopCamera(words = "The camera is off.", faulty = false) {
  if (!running) return;
  turn += 1;
  setRunning(false);
  figures.textContent = "";
  say(words, faulty);
}

function setRunning(now) {
  running = now;
  cameraButton.textContent = now ? "Stop camera" : "Start camera";
}

// ---- what was seen ----

function show(source, answer, mirrored) {
  shown = { source, mirrored };
  const { width, height } = source;
  frame.style.setProperty("--ratio", width / height);
  frame.classList.toggle("mirrored", mirrored);
  frame.hidden = false;
  part("hint").hidden = true;
  place.classList.add("full");
  drawn(source, width, height, LONGEST, picture);
  const across = (face) => (mirrored ? width - face.left - face.side : face.left);
  const faces = [...answer.faces].sort((one, other) => across(one) - across(other)); // numbers stay while faces move
  const places = faces.map((face) => [across(face) / width, face.top / height, face.side / width, face.side / height]);
  boxes.replaceChildren(...faces.map((face, index) => box(face, places[index], index)));
  faces.forEach((face, index) => fill(list.children[index] ?? list.appendChild(card(index)), face));
  while (list.children.length > faces.length) list.lastChild.remove();
  part("none").hidden = faces.length > 0;
  part("none").textContent = "No face was found.";
  const likeliest = faces.map((face, index) => `${index + 1} ${classes[top(face)]}`).join(", ");
  picture.setAttribute("aria-label", `The picture: ${likeliest || "no face found"}`);
}

const top = (face) => face.probabilities.indexOf(Math.max(...face.probabilities));

function made(tag, className, words = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = words;
  return element;
}

function numbered(element, index) {
  element.style.setProperty("--colour", COLOURS[index % COLOURS.length]);
  return made("span", "number", index + 1);
}

function box(face, shares, index) {
  const element = made("div", "box");
  ["left", "top", "width", "height"].forEach((side, i) => (element.style[side] = `${100 * shares[i]}%`));
  if (face.map) element.append(heat(face.map));
  element.append(numbered(element, index));
  return element;
}

// A map as colours, the more opaque the more it counted.
function heat({ width, height, values }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(width, height);
  values.forEach((value, index) => {
    const place = Math.min(value, 0.9999) * (HEAT.length - 1);
    const [low, high] = [HEAT[Math.floor(place)], HEAT[Math.floor(place) + 1]];
    const colour = low.map((from, i) => from + (place % 1) * (high[i] - from));
    pixels.data.set([...colour, 255 * Math.min(0.65, 1.3 * value)], 4 * index);
  });
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

function card(index) {
  const element = made("li", "face");
  const title = made("h3", "");
  title.append(numbered(element, index), made("span", "title"));
  const shares = made("ul", "shares");
  for (const name of classes) {
    const row = made("li", "");
    const track = made("span", "track");
    track.setAttribute("aria-hidden", "true");
    track.append(made("span", ""));
    row.append(made("span", "", name), track, made("span", "percent"));
    shares.append(row);
  }
  element.append(title, shares);
  return element;
}

function fill(element, face) {
  const likeliest = top(face);
  element.querySelector(".title").textContent = classes[likeliest];
  const whole = percents(face.probabilities);
  [...element.querySelectorAll(".shares li")].forEach((row, index) => {
    row.classList.toggle("likeliest", index === likeliest);
    row.querySelector(".track span").style.width = `${100 * face.probabilities[index]}%`;
    row.querySelector(".percent").textContent = `${whole[index]} %`;
  });
}

// Whole percents that add up to 100: those that lose most by rounding down are rounded up.
function percents(probabilities) {
  const exact = probabilities.map((share) => 100 * share);
  const whole = exact.map(Math.floor);
  const order = exact.map((_, index) => index).sort((a, b) => exact[b] - whole[b] - (exact[a] - whole[a]));
  const missing = 100 - whole.reduce((sum, share) => sum + share, 0);
  order.slice(0, Math.max(0, missing)).forEach((index) => (whole[index] += 1));
  return whole;
}

// ---- what people do ----

chooser.addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  if (file.files.length) takePicture(file.files[0]);
  file.value = ""; // the same file may be chosen again
});
cameraButton.addEventListener("click", () => (running ? stopCamera() : startCamera()));
mapSwitch.addEventListener("change", () => {
  part("legend").hidden = !mapSwitch.checked;
  frame.classList.toggle("mapped", mapSwitch.checked);
  if (mapSwitch.checked && shown && !running) judge(shown.source, ++turn, shown.mirrored);
});
document.addEventListener("keydown", (event) => event.key === "Escape" && stopCamera());
document.addEventListener("paste", (event) => {
  const [pasted] = event.clipboardData.files;
  if (pasted) takePicture(pasted);
  else say("There is no picture in the clipboard.", true);
});
let over = 0; // drags enter and leave every element on their way
document.addEventListener("dragenter", () => place.classList.toggle("over", ++over > 0));
document.addEventListener("dragleave", () => place.classList.toggle("over", --over > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // the browser would leave the page for the file
  place.classList.toggle("over", (over = 0) > 0);
  const [dropped] = event.dataTransfer.files;
  if (dropped) takePicture(dropped);
  else say("That is no file. Save the picture first, or copy and paste it.", true);
});
window.addEventListener("pagehide", () => stopCamera());

try {
  const about = await open();
  classes = about.classes;
  const input = `${about.side} x ${about.side} ${about.channels === 1 ? "grey" : "colour"} pixels`;
  part("about").textContent = `${about.name} sees each face as ${input} and tells apart ${classes.slice(0, -1).join(", ")} and ${classes.at(-1)}.`;
  part("private").textContent = about.private;
  chooser.disabled = cameraButton.disabled = false;
  mapSwitch.disabled = Boolean(about.without_maps);
  part("reason").hidden = !about.without_maps;
  part("reason").textContent = about.without_maps ?? "";
} catch (error) {
  part("about").textContent = "";
  say(error.message, true);
}
