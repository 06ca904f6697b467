// Where the page's modules do not load, none of them can say so; this is no module.

addEventListener("error", failed, true); // a script's error does not rise: it is caught on its way down

function failed({ target }) {
  if (target?.tagName !== "SCRIPT") return;
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
  else say();
}

function say() {
  document.getElementById("about").textContent =
    location.protocol === "file:"
      ? "Opened as a file, this page cannot start: it has to come from a web server. In its folder, python -m http.server starts one."
      : "The page could not start: a part of it did not load. Is the folder whole?";
}
