// The parts are put together: the address is read, every part is drawn, and paper gets what it needs.

Object.assign(state, readAddress());
sift();
watch(["q"], sift); // before all others that look at the rows
startVerdict();
startFigures();
startTable();
startBeside();
startDetail();

addEventListener("hashchange", () => apply(readAddress()));
// Links within the page move it, and leave the reader's choices in the address.
for (const link of all('a[href^="#"]')) {
  link.addEventListener("click", (event) => {
    const target = byId(link.getAttribute("href").slice(1));
    if (!target) return;
    event.preventDefault();
    target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  });
}
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    fill(byId("copied"), "copied");
  } catch {
    fill(byId("copied"), "the address above is the link");
  }
});

// Paper: light colours, a fixed width, all rows, nothing folded.
const redraw = (onPaper) => {
  printing = onPaper;
  drawFigures();
  drawRows();
  if (data.runs.length > 1) drawBeside();
};
addEventListener("beforeprint", () => {
  for (const one of all("details")) one.open = true;
  redraw(true);
});
addEventListener("afterprint", () => redraw(false));

// For tests, and for readers with a console.
window.vbench = { data, rows, curves, state, ratio, times, parseFilter, judge, verdictNow, frontOf, overBaseline, costOf, choose };
