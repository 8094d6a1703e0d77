// What the theme and ipywidgets leave out for readers with a keyboard or a screen reader.
function mend() {
  // the sidebar's captions say that they are headings and not of which level
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.setAttribute("aria-level", "2");
  // a hidden cell's own words name its switch better than the label that covers them
  for (const summary of document.querySelectorAll("summary[aria-label]")) summary.removeAttribute("aria-label");
  // what scrolls can be reached by keyboard
  for (const box of document.querySelectorAll("pre, .math-wrapper, .cell_output, .output, .table-wrapper, .widget-html-content > div")) {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
  }
  // a slider has the name of the list in its row
  for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-hbox")?.querySelector(".widget-label");
    if (label) handle.setAttribute("aria-label", label.textContent);
  }
  // play, stop and repeat are pictures alone
  for (const [icon, name] of [["play", "play or pause"], ["stop", "stop"], ["retweet", "repeat"]]) {
    for (const sign of document.querySelectorAll(`.jupyter-button:not([aria-label]) > .fa-${icon}`)) {
      sign.parentElement.setAttribute("aria-label", name);
    }
  }
}
document.addEventListener("DOMContentLoaded", () => {
  let waiting;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(mend, 200);
  };
  mend();
  new MutationObserver(soon).observe(document.body, { childList: true, subtree: true }); // widgets come later
  window.addEventListener("resize", soon);
});
