"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = [];
  let drawing = Promise.resolve();

  const config = (width, letters) => {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = getComputedStyle(document.body).fontFamily;
    const ink = colour("--ink"), quiet = colour("--quiet"), line = colour("--line");
    return {
      background: "transparent",
      font,
      view: { stroke: null },
      axis: {
        labelColor: quiet, titleColor: quiet, gridColor: line, domainColor: line,
        tickColor: line, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
        labelFont: font, titleFont: font, titlePadding: 8,
      },
      axisY: { domain: false, ticks: false, labelPadding: 6 },
      legend: {
        labelColor: ink, titleColor: quiet, labelFontSize: 12.5, symbolSize: 90,
        labelFont: font, titleFont: font, columnPadding: 14, offset: 8,
        columns: Math.max(1, Math.floor((width - 60) / (letters * 7.2 + 34))),
      },
      title: { color: ink },
      text: { color: ink },
    };
  };

  // Letters of the longest name in a figure's legends, which must stand side by side.
  const longest = (part) => {
    if (!part || typeof part !== "object" || part.legend === null) return 1;
    const names = Array.isArray(part.domain) ? part.domain.filter((one) => typeof one === "string") : [];
    const inner = Object.entries(part).map(([key, one]) => (key === "data" || key === "datasets" ? 1 : longest(one)));
    return Math.max(1, ...names.map((one) => one.length), ...inner);
  };
  const draw = async () => {
    while (views.length) views.pop().finalize();
    for (const place of document.querySelectorAll("[data-figure]")) {
      const spec = specs[place.dataset.figure];
      const result = await vegaEmbed(place, spec, {
        renderer: "svg",
        config: config(place.clientWidth, longest(spec)),
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: place.dataset.figure,
        tooltip: { theme: isDark() ? "dark" : "light" },
      });
      views.push(result);
    }
    root.dataset.drawn = isDark() ? "dark" : "light";
  };
  const redraw = () => {
    delete root.dataset.drawn;
    drawing = drawing.then(draw);
  };
  const isDark = () =>
    root.dataset.theme === "dark" || (root.dataset.theme === "auto" && systemDark.matches);

  // The values that a figure is drawn from, once each, as its specification has them.
  const tables = (part, found = []) => {
    if (Array.isArray(part)) part.forEach((one) => tables(one, found));
    else if (part && typeof part === "object") {
      const sets = [...Object.values(part.datasets || {}), part.data && part.data.values];
      for (const values of sets)
        if (values && values.length && !found.some((one) => JSON.stringify(one) === JSON.stringify(values)))
          found.push(values);
      for (const [name, one] of Object.entries(part))
        if (name !== "data" && name !== "datasets") tables(one, found);
    }
    return found;
  };
  for (const place of document.querySelectorAll("[data-values]")) {
    place.parentElement.addEventListener("toggle", () => {
      if (place.childElementCount) return;
      for (const values of tables(specs[place.dataset.values])) {
        const table = document.createElement("table");
        const names = [...new Set(values.flatMap((one) => Object.keys(one)))];
        const row = (kind, texts) => {
          const line = table.insertRow();
          for (const text of texts) line.appendChild(document.createElement(kind)).textContent = text ?? "";
        };
        row("th", names);
        values.forEach((one) => row("td", names.map((name) => one[name])));
        place.append(table);
      }
    });
  }

  // On paper nothing can be unfolded: what is folded is opened to be printed, and folded again.
  // And nothing scrolls: a wide table is cut into parts, each with the names of its rows.
  const unfolded = [], cut = [], columnsMax = 7;
  const partOf = (table, first) => {
    const part = table.cloneNode(true);
    for (const row of part.rows)
      [...row.cells].forEach((cell, place) => {
        if (cell.colSpan > 1) cell.colSpan = columnsMax;
        else if (place && (place < first || place >= first + columnsMax)) cell.remove();
      });
    if (part.caption && first > 1) part.caption.append(", continued");
    return part;
  };
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open]):not(.data):not(.vega-embed details)")) {
      part.open = true;
      unfolded.push(part);
    }
    for (const table of document.querySelectorAll(".scroll > table.numbers")) {
      const count = table.rows[0].cells.length;
      if (count <= columnsMax + 2) continue;
      const parts = [];
      for (let first = 1; first < count; first += columnsMax) parts.push(partOf(table, first));
      table.after(...parts);
      table.hidden = true;
      cut.push([table, parts]);
    }
  });
  window.addEventListener("afterprint", () => {
    while (unfolded.length) unfolded.pop().open = false;
    while (cut.length) {
      const [table, parts] = cut.pop();
      table.hidden = false;
      parts.forEach((part) => part.remove());
    }
  });

  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    root.dataset.theme = next;
    button.querySelector("span").textContent = next;
    redraw();
  });
  systemDark.addEventListener("change", () => {
    if (root.dataset.theme === "auto") redraw();
  });
  redraw();
})();
