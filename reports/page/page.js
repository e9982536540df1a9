"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // Figures: drawn from the data beside this script; one legend for all.
  const figures = JSON.parse(byId("figures").textContent);
  const finger = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
  const look = {
    margin: { l: 62, r: 16, t: 12, b: 52 },
    showlegend: false,
    hovermode: "closest",
    dragmode: finger ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 12, color: "#222" },
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#888", font: { size: 12, color: "#222" } },
  };
  const drawn = {};
  const hidden = new Set();

  for (const [key, spec] of Object.entries(figures)) {
    const place = byId(`plot-${key}`);
    drawn[key] = place;
    Plotly.newPlot(place, spec.data, { ...look, ...spec.layout }, { displayModeBar: false, responsive: true });
    place.on("plotly_click", (event) => showRow(event.points[0].customdata));
  }

  const redraw = () => {
    for (const [key, place] of Object.entries(drawn)) {
      Plotly.restyle(place, { visible: figures[key].data.map((trace) => !hidden.has(trace.legendgroup)) });
    }
    for (const button of all(".key")) button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.series)));
  };
  for (const button of all(".key")) {
    button.addEventListener("click", () => {
      const series = button.dataset.series;
      if (!hidden.delete(series)) hidden.add(series);
      redraw();
    });
  }
  byId("show-all")?.addEventListener("click", () => { hidden.clear(); redraw(); });
  byId("show-none")?.addEventListener("click", () => { all(".key").forEach((one) => hidden.add(one.dataset.series)); redraw(); });

  for (const button of all("[data-axis]")) {
    button.addEventListener("click", () => {
      const log = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(log));
      const axis = button.dataset.axis;
      const place = drawn[button.dataset.plot];
      Plotly.relayout(place, { [`${axis}.type`]: log ? "log" : "linear", [`${axis}.autorange`]: true });
    });
  }
  // Ticks of y are for a logarithmic axis that is seen whole; else plotly chooses.
  const setTicks = (place) => {
    const { type, autorange, tickvals, tickmode } = place.layout.yaxis;
    const mode = tickvals && type === "log" && autorange ? "array" : "auto";
    if (mode !== tickmode) Plotly.relayout(place, { "yaxis.tickmode": mode });
  };
  Object.values(drawn).forEach((place) => {
    setTicks(place);
    place.on("plotly_relayout", () => setTicks(place));
  });
  for (const button of all("[data-reset]")) {
    button.addEventListener("click", () => Plotly.relayout(drawn[button.dataset.reset], { "xaxis.autorange": true, "yaxis.autorange": true }));
  }
  for (const button of all("[data-save]")) {
    const key = button.dataset.save;
    const whole = () => ({ data: drawn[key].data, layout: { ...drawn[key].layout, showlegend: true, paper_bgcolor: "#fff" } });
    button.addEventListener("click", () => Plotly.downloadImage(whole(), { format: "svg", width: 800, height: 500, filename: `vbench-${key}` }));
  }

  // A figure is as wide as the screen; on paper it is as wide as the paper.
  addEventListener("beforeprint", () => all("details").forEach((one) => { one.open = true; }));
  addEventListener("beforeprint", () => Object.values(drawn).forEach((place) => Plotly.relayout(place, { width: 660, height: 300 })));
  addEventListener("afterprint", () => Object.values(drawn).forEach((place) => Plotly.relayout(place, { width: null, height: null, autosize: true })));

  // The table: filter and sort.
  const body = byId("rows").tBodies[0];
  const words = (row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
  const rows = [...body.rows].map((row, order) => ({ row, order, text: words(row) }));
  const filter = byId("filter");
  const status = byId("status");

  const sift = () => {
    const asked = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, text } of rows) {
      const keep = asked.every((word) => text.includes(word)) && (!status.value || row.dataset.status === status.value);
      row.hidden = !keep;
      shown += keep;
    }
    byId("count").textContent = `${shown} of ${rows.length} rows`;
  };
  filter.addEventListener("input", sift);
  status.addEventListener("change", sift);
  byId("clear").addEventListener("click", () => { filter.value = status.value = ""; sift(); });

  const showRow = (id) => {
    if (!id) return;
    filter.value = id;
    status.value = "";
    sift();
    byId("rows-section").scrollIntoView();
  };

  const heads = all("#rows thead th");
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const number = head.classList.contains("number");
      const value = ({ row }) => {
        const cell = row.cells[column];
        if (number) return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
        return cell.textContent || null;
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order; // what is missing comes last
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1) || a.order - b.order;
      };
      body.append(...[...rows].sort(order).map(({ row }) => row));
    });
  });
})();
