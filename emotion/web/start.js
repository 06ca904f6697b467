// Reports that the page's modules could not be loaded; not a module itself.

addEventListener("error", report, true); // script errors do not bubble

function report({ target, error }) {
  if (target?.tagName !== "SCRIPT" && !(error instanceof SyntaxError)) return;
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", show);
  else show();
}

function show() {
  document.getElementById("about").textContent =
    location.protocol === "file:"
      ? "This page must be opened from a web server. To start one, run python -m http.server in its folder."
      : "The page could not be loaded completely. Is the folder complete?";
}
