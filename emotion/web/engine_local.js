// Looks at pictures in the browser itself: network, detector and runtime lie beside the page. The other engine of the
// page has a server look.

const PRIVATE = "No picture leaves this browser: it looks at them itself and stores nothing.";
const NO_START =
  "The engine could not be started. Is the folder whole? The browser must be one of 2023 or later (module workers).";

const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const asked = new Map(); // questions by number, until they are answered
let worker;
let number = 0;

// {name, classes, side, channels, private: where pictures go}
export async function open() {
  worker ??= started();
  return { ...(await answer({ kind: "open" })), private: PRIVATE };
}

// {faces: [{left, top, side, probabilities, map}], milliseconds}; see app.js
export async function look(source, { map = false } = {}) {
  const { width, height } = source;
  [pen.canvas.width, pen.canvas.height] = [width, height];
  pen.drawImage(source, 0, 0);
  const { data } = pen.getImageData(0, 0, width, height);
  return answer({ kind: "look", width, height, data, map }, [data.buffer]);
}

// A worker keeps the page lively. One of a blob is held to the page's own policy, which lets nothing out of the browser;
// one of a file would be held to whatever policy the host gives that file.
function started() {
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const made = new Worker(address, { type: "module" });
  made.onmessage = ({ data: { number, error, told } }) => {
    const { done, failed } = asked.get(number);
    asked.delete(number);
    if (error) failed(new Error(error));
    else done(told);
  };
  made.onerror = (event) => {
    event.preventDefault();
    for (const { failed } of asked.values()) failed(new Error(NO_START));
    asked.clear();
  };
  return made;
}

function answer(question, given = []) {
  return new Promise((done, failed) => {
    asked.set(++number, { done, failed });
    worker.postMessage({ number, ...question }, given);
  });
}
